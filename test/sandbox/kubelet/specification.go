package kubelet

import (
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/securitycontext"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/test/sandbox/kubelet/container"
)

// Image stands for a container image of ours: one program.
type Image struct {
	// Path is the program's file on this machine. A dynamically linked one
	// gets the machine's library folders, as a base image would bring them.
	Path string
	// Entrypoint is the program's path in the image, for instance
	// "/netlatency-agent". It is what runs when the container has no command;
	// a command that names another path fails, as it would in a cluster.
	Entrypoint string
}

// imageUser is the user of our images (distroless "nonroot"), for pods that
// set none.
const imageUser = 65532

// repository is an image reference without tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if colon := strings.LastIndexByte(image, ':'); colon > strings.LastIndexByte(image, '/') {
		image = image[:colon]
	}
	return image
}

// identity is who the container runs as.
type identity struct {
	uid, gid int
	// fsGroup is the group that may read volumes, -1 for none.
	fsGroup int
	groups  []int
}

func identify(pod *v1.Pod, c *v1.Container) (identity, error) {
	sc := securitycontext.DetermineEffectiveSecurityContext(pod, c)
	id := identity{uid: int(ptr.Deref(sc.RunAsUser, imageUser)), fsGroup: -1}
	if id.uid == 0 && isTrue(sc.RunAsNonRoot) {
		return id, errors.New("container has runAsNonRoot and would run as root")
	}
	// The image's passwd gives its user a group of the same number; a user
	// that is not in there gets group 0.
	if id.uid == imageUser {
		id.gid = imageUser
	}
	id.gid = int(ptr.Deref(sc.RunAsGroup, int64(id.gid)))
	if podContext := pod.Spec.SecurityContext; podContext != nil {
		if podContext.FSGroup != nil {
			id.fsGroup = int(*podContext.FSGroup)
			id.groups = append(id.groups, id.fsGroup)
		}
		for _, group := range podContext.SupplementalGroups {
			id.groups = append(id.groups, int(group))
		}
	}
	return id, nil
}

// specification says how the pod's container is started. Volumes are the
// folders of the pod's volumes by name.
func specification(pod *v1.Pod, c *v1.Container, id identity, image Image, volumes map[string]string, address netip.Addr) (container.Spec, error) {
	sc := securitycontext.DetermineEffectiveSecurityContext(pod, c)
	spec := container.Spec{
		Hostname:        pod.Name,
		WorkingDir:      c.WorkingDir,
		ReadOnlyRoot:    isTrue(sc.ReadOnlyRootFilesystem),
		UID:             id.uid,
		GID:             id.gid,
		Groups:          id.groups,
		NoNewPrivileges: securitycontext.AddNoNewPrivileges(sc),
		Files: map[string]string{
			"/etc/passwd":      fmt.Sprintf("root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:%[1]d:%[1]d:nonroot:/home/nonroot:/sbin/nologin\n", imageUser),
			"/etc/group":       fmt.Sprintf("root:x:0:\nnonroot:x:%d:\n", imageUser),
			"/etc/hostname":    pod.Name + "\n",
			"/etc/hosts":       fmt.Sprintf("127.0.0.1 localhost\n%s %s\n", address, pod.Name),
			"/etc/resolv.conf": "# The sandbox has no DNS.\n",
		},
		Links:  map[string]string{},
		Mounts: []container.Mount{{Source: image.Path, Target: image.Entrypoint, ReadOnly: true}},
	}
	var drop, add []string
	if sc.Capabilities != nil {
		for _, name := range sc.Capabilities.Drop {
			drop = append(drop, string(name))
		}
		for _, name := range sc.Capabilities.Add {
			add = append(add, string(name))
		}
	}
	var err error
	if spec.Capabilities, err = container.Capabilities(drop, add); err != nil {
		return container.Spec{}, err
	}
	if err := libraries(image.Path, &spec); err != nil {
		return container.Spec{}, err
	}
	for _, mount := range c.VolumeMounts {
		folder, found := volumes[mount.Name]
		if !found {
			return container.Spec{}, fmt.Errorf("volume mount %s: the pod has no such volume", mount.Name)
		}
		volume := slices.IndexFunc(pod.Spec.Volumes, func(v v1.Volume) bool { return v.Name == mount.Name })
		spec.Mounts = append(spec.Mounts, container.Mount{
			Source: folder, Target: mount.MountPath,
			// All that is not an emptyDir is written by the kubelet only.
			ReadOnly: mount.ReadOnly || pod.Spec.Volumes[volume].EmptyDir == nil,
		})
	}
	return spec, nil
}

// libraries mounts what a dynamically linked program needs to start.
func libraries(program string, spec *container.Spec) error {
	binary, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	defer binary.Close()
	if !slices.ContainsFunc(binary.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }) {
		return nil
	}
	for _, path := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache"} {
		info, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("find libraries: %w", err)
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return fmt.Errorf("find libraries: %w", err)
			}
			spec.Links[path] = filepath.Join("/", target)
		default:
			spec.Mounts = append(spec.Mounts, container.Mount{Source: path, Target: path, ReadOnly: true})
		}
	}
	return nil
}
