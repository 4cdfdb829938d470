package kubelet

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// witness is the first argument that makes this test binary the program of a
// pod's container: it tells over HTTP what it finds itself in.
const witness = "witness"

// testimony is what the witness saw at its start and sees now.
type testimony struct {
	Args, Env, Root, Devices    []string
	PID, UID, GID               int
	Groups                      []int
	Hostname                    string
	Processes                   []string
	Status                      map[string]string // of /proc/self/status
	Addresses                   []string
	Writable                    map[string]bool
	Files                       map[string]string
	Modes                       map[string]string
	PingSocket, Remount, Device string // "" or an error
}

// testify runs the witness: testify(address, folders whose writability and
// files that it reports, separated by commas).
func testify(address, folders, files string) int {
	var ready, healthy atomic.Bool
	ready.Store(true)
	healthy.Store(true)
	answer := func(w http.ResponseWriter, ok bool) {
		if !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}
	http.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { answer(w, ready.Load()) })
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, healthy.Load()) })
	http.HandleFunc("/unready", func(http.ResponseWriter, *http.Request) { ready.Store(false) })
	http.HandleFunc("/sick", func(http.ResponseWriter, *http.Request) { healthy.Store(false) })
	http.HandleFunc("/exit", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(observe(strings.Split(folders, ","), strings.Split(files, ",")))
	})
	terminated := make(chan os.Signal, 1)
	signal.Notify(terminated, syscall.SIGTERM)
	go func() {
		<-terminated
		fmt.Println("terminated")
		os.Exit(0)
	}()
	fmt.Println("witness starts")
	fmt.Fprintln(os.Stderr, http.ListenAndServe(address, nil))
	return 1
}

func observe(folders, files []string) testimony {
	t := testimony{
		Args: os.Args, Env: os.Environ(), PID: os.Getpid(), UID: os.Getuid(), GID: os.Getgid(),
		Status: map[string]string{}, Writable: map[string]bool{}, Files: map[string]string{}, Modes: map[string]string{},
	}
	t.Groups, _ = os.Getgroups()
	t.Hostname, _ = os.Hostname()
	t.Root, t.Devices = list("/"), list("/dev")
	for _, process := range list("/proc") {
		if strings.Trim(process, "0123456789") == "" {
			t.Processes = append(t.Processes, process)
		}
	}
	status, _ := os.ReadFile("/proc/thread-self/status")
	for line := range strings.SplitSeq(string(status), "\n") {
		name, value, _ := strings.Cut(line, ":")
		t.Status[name] = strings.TrimSpace(value)
	}
	addresses, _ := net.InterfaceAddrs()
	for _, a := range addresses {
		t.Addresses = append(t.Addresses, a.String())
	}
	for _, folder := range folders {
		file := filepath.Join(folder, "written by the witness")
		t.Writable[folder] = os.WriteFile(file, nil, 0o600) == nil
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			content = []byte(err.Error())
		}
		t.Files[file] = string(content)
		if info, err := os.Stat(file); err == nil {
			t.Modes[file] = info.Mode().String()
		}
	}
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_ICMP)
	t.PingSocket = message(err)
	if err == nil {
		unix.Close(socket)
	}
	t.Remount = message(unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, ""))
	t.Device = message(os.WriteFile("/dev/null", []byte("x"), 0))
	return t
}

func message(err error) string {
	if err != nil {
		return err.Error()
	}
	return ""
}

func list(folder string) []string {
	var names []string
	entries, _ := os.ReadDir(folder)
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}
