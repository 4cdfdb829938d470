package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	modulePath       = "github.com/netlatency/netlatency"
	kubernetesModule = "k8s.io/kubernetes"
)

// A Binary is a program the sandbox runs, built from source.
type Binary struct {
	// Name of the file in build/bin, or in a folder of it. Where several
	// packages of a module are built it ends as pkg does, since go names the
	// files of a joint build.
	Name string
	// module is the directory, below the repository, of the go.mod to build
	// in; pkg the import path.
	module, pkg string
	// version is what the program says it is.
	version version
	// tags of the build, separated by commas; no other program may share its
	// packages, or they would be compiled once more.
	tags string
}

// version is where a binary has its version from.
type version int

const (
	versionBuiltIn  version = iota // it knows itself
	versionUpstream                // the Kubernetes that its go.mod requires
	versionOwn                     // the description of the commit
)

// The programs of the sandbox. Cold, Kubernetes takes minutes to build.
var (
	Kubernetes = Binary{Name: "kubernetes", module: ".", pkg: modulePath + "/test/sandbox/cmd/kubernetes", version: versionUpstream}
	Agent      = Binary{Name: "agent", module: ".", pkg: modulePath + "/cmd/agent", version: versionOwn}
	Scheduler  = Binary{Name: "scheduler", module: ".", pkg: modulePath + "/cmd/scheduler", version: versionOwn}
	CLI        = Binary{Name: "kubectl-netlatency", module: ".", pkg: modulePath + "/cmd/kubectl-netlatency", version: versionOwn}
	Kwok       = Binary{Name: "kwok", module: "hack/tools/kwok", pkg: "sigs.k8s.io/kwok/cmd/kwok"}
	KubeRay    = Binary{Name: "kuberay-operator", module: "hack/tools/kuberay", pkg: "github.com/ray-project/kuberay/ray-operator"}
)

// ControlPlane are the binaries that Start needs; the rest are the programs
// under test.
var ControlPlane = []Binary{Kubernetes, Kwok, KubeRay}

// OtherKubernetes are the minor versions that a control plane can be of instead
// of the one we link. Each has a module of its own, hack/tools/kubernetes-<minor>.
var OtherKubernetes = []string{"1.34", "1.35", "1.37"}

// KubernetesOf returns the API server, controller manager and default scheduler
// of one of OtherKubernetes, which Start needs beside the ControlPlane.
func KubernetesOf(minor string) ([]Binary, error) {
	if !slices.Contains(OtherKubernetes, minor) {
		return nil, fmt.Errorf("kubernetes %q: want one of %s, or nothing for the version of our go.mod", minor, strings.Join(OtherKubernetes, ", "))
	}
	return []Binary{
		kubernetesOf(minor, "kube-apiserver"), kubernetesOf(minor, "kube-controller-manager"), kubernetesOf(minor, "kube-scheduler"),
	}, nil
}

func kubernetesOf(minor, program string) Binary {
	folder := "kubernetes-" + minor
	return Binary{Name: folder + "/" + program, module: "hack/tools/" + folder, pkg: kubernetesModule + "/cmd/" + program, version: versionUpstream}
}

// Build brings the binaries up to date, one after the other (each build uses
// every core), and returns the directory they are in. What is up to date
// costs only go's own check of its inputs. A cold build downloads modules: call
// it where there is a network, before namespace.Enter. progress gets a line for
// each build that takes long enough to be worth one; nil for none.
func Build(ctx context.Context, progress func(string), binaries ...Binary) (string, error) {
	root, err := repositoryRoot(ctx)
	if err != nil {
		return "", err
	}
	binDir := filepath.Join(root, "build", "bin")
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return "", err
	}
	if progress == nil {
		progress = func(string) {}
	}
	// One go command for all that share a module and a version: most of what an
	// up-to-date check costs is reading the packages they share.
	for len(binaries) > 0 {
		var now, later []Binary
		for _, b := range binaries {
			if b.module == binaries[0].module && b.version == binaries[0].version && b.tags == binaries[0].tags {
				now = append(now, b)
			} else {
				later = append(later, b)
			}
		}
		if err := buildTogether(ctx, root, binDir, now, progress); err != nil {
			return "", err
		}
		binaries = later
	}
	return binDir, nil
}

// noticeable is how long a build runs before it is announced: a check that
// finds nothing to do stays quiet.
const noticeable = 5 * time.Second

func buildTogether(ctx context.Context, root, binDir string, binaries []Binary, progress func(string)) error {
	args, err := buildArguments(ctx, root, binDir, binaries)
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(root, binaries[0].module)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	names := make([]string, 0, len(binaries))
	for _, b := range binaries {
		names = append(names, b.Name)
	}
	what := strings.Join(names, ", ")
	started := time.Now()
	announce := time.AfterFunc(noticeable, func() { progress("building " + what) })
	err = cmd.Run()
	announced := !announce.Stop()
	if err != nil {
		return fmt.Errorf("build %s (go %s, in %s): %w\n%s", what, strings.Join(args, " "), cmd.Dir, err, out.Bytes())
	}
	if announced {
		progress(fmt.Sprintf("built %s (%.0f s)", what, time.Since(started).Seconds()))
	}
	return nil
}

// buildArguments of the go command, the same as in the Makefile, as CGO_ENABLED
// is: go links anew what was linked with other flags. None changes what is compiled, so that all
// binaries and the tests share one build cache. -buildvcs=false because a stamp
// of the commit would relink everything at every commit.
func buildArguments(ctx context.Context, root, binDir string, binaries []Binary) ([]string, error) {
	ldflags := "-s -w"
	if binaries[0].version != versionBuiltIn {
		kubernetes, err := goList(ctx, filepath.Join(root, binaries[0].module), "{{.Version}}", kubernetesModule)
		if err != nil {
			return nil, err
		}
		ldflags += " -X " + versionVariable + "=" + kubernetes
	}
	if binaries[0].version == versionOwn {
		ldflags += " -X " + ownVersionVariable + "=" + describeCommit(ctx, root)
	}
	output := filepath.Join(binDir, binaries[0].Name)
	if len(binaries) > 1 {
		output = filepath.Dir(output) + string(filepath.Separator)
	}
	packages := make([]string, 0, len(binaries))
	for _, b := range binaries {
		packages = append(packages, b.pkg)
	}
	arguments := []string{"build", "-buildvcs=false", "-ldflags", ldflags, "-o", output}
	if tags := binaries[0].tags; tags != "" {
		arguments = append(arguments, "-tags", tags)
	}
	return append(arguments, packages...), nil
}

// Built from modules, Kubernetes knows no version of its own, and clients parse
// what it reports. A scheduler decides by component-base's version what features
// it may use: it is Kubernetes' also in our own programs, and ours stands beside
// it.
const (
	versionVariable    = "k8s.io/component-base/version.gitVersion"
	ownVersionVariable = modulePath + "/pkg/version.version"
)

func describeCommit(ctx context.Context, root string) string {
	cmd := exec.CommandContext(ctx, "git", "describe", "--tags", "--always", "--dirty")
	cmd.Dir = root
	out, err := cmd.Output()
	description := strings.TrimSpace(string(out))
	if err != nil || description == "" {
		return "dev"
	}
	return description
}

// repositoryRoot is where our go.mod is, whatever directory below it the
// program or test was started in.
func repositoryRoot(ctx context.Context) (string, error) {
	return moduleDir(ctx, "", modulePath)
}

// moduleDir is where go keeps the source of a module that the go.mod in dir
// requires.
func moduleDir(ctx context.Context, dir, module string) (string, error) {
	found, err := goList(ctx, dir, "{{.Dir}}", module)
	if err == nil && found == "" {
		err = fmt.Errorf("module %s is not downloaded: run `go mod download` in %s", module, dir)
	}
	return found, err
}

// goList is what go knows of a module that the go.mod in dir requires.
func goList(ctx context.Context, dir, format, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", format, module)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("locate module %s (run it from inside the repository): %w%s", module, err, stderrOf(err))
	}
	return strings.TrimSpace(string(out)), nil
}

func stderrOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return ": " + strings.TrimSpace(string(exit.Stderr))
	}
	return ""
}
