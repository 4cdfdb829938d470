package kubelet

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/securitycontext"
)

// ImagePrefix is what the images of this project's own pods begin with. kwok
// leaves a pod alone that has a container of such an image.
const ImagePrefix = "ghcr.io/netlatency/"

// Ours reports whether a pod is run by this package: one with a container of
// an image of ours.
func Ours(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(c v1.Container) bool { return strings.HasPrefix(c.Image, ImagePrefix) })
}

// pingGroupRange is the only sysctl that pods of ours set.
const pingGroupRange = "net.ipv4.ping_group_range"

// unsupported lists what the pod asks for and would not get, as field paths
// with a reason. A pod is not started half.
func unsupported(pod *v1.Pod) []string {
	var faults []string
	reject := func(condition bool, path string, format string, args ...any) {
		if condition {
			faults = append(faults, path+": "+fmt.Sprintf(format, args...))
		}
	}
	spec := &pod.Spec
	reject(len(spec.InitContainers) > 0, "spec.initContainers", "init containers are not supported")
	reject(len(spec.Containers) != 1, "spec.containers", "exactly one container is supported, not %d", len(spec.Containers))
	reject(len(spec.ReadinessGates) > 0, "spec.readinessGates", "not supported")
	reject(spec.HostPID, "spec.hostPID", "not supported")
	reject(spec.HostIPC, "spec.hostIPC", "not supported")
	reject(spec.HostUsers != nil && !*spec.HostUsers, "spec.hostUsers", "not supported")
	if sc := spec.SecurityContext; sc != nil {
		for i, sysctl := range sc.Sysctls {
			path := fmt.Sprintf("spec.securityContext.sysctls[%d]", i)
			reject(sysctl.Name != pingGroupRange, path, "%s is not supported, only %s", sysctl.Name, pingGroupRange)
			reject(spec.HostNetwork, path, "forbidden with hostNetwork")
		}
	}
	for i, volume := range spec.Volumes {
		source := volume.VolumeSource
		known := source.ConfigMap != nil || source.Secret != nil || source.EmptyDir != nil || source.DownwardAPI != nil || source.Projected != nil
		reject(!known, fmt.Sprintf("spec.volumes[%d]", i), "volume %s: only configMap, secret, emptyDir, downwardAPI and projected are supported", volume.Name)
	}
	for i := range spec.Containers {
		c := &spec.Containers[i]
		path := fmt.Sprintf("spec.containers[%d]", i)
		reject(len(c.EnvFrom) > 0, path+".envFrom", "not supported")
		reject(len(c.VolumeDevices) > 0, path+".volumeDevices", "not supported")
		reject(c.TTY || c.Stdin, path, "tty and stdin are not supported")
		for j, mount := range c.VolumeMounts {
			reject(mount.SubPath != "" || mount.SubPathExpr != "", fmt.Sprintf("%s.volumeMounts[%d]", path, j), "subPath is not supported")
		}
		for j, port := range c.Ports {
			reject(port.HostPort != 0 && !spec.HostNetwork, fmt.Sprintf("%s.ports[%d].hostPort", path, j), "not supported")
		}
		for kind, probe := range map[string]*v1.Probe{"livenessProbe": c.LivenessProbe, "readinessProbe": c.ReadinessProbe, "startupProbe": c.StartupProbe} {
			reject(probe != nil && probe.HTTPGet == nil, path+"."+kind, "only httpGet probes are supported")
		}
		if hooks := c.Lifecycle; hooks != nil {
			reject(hooks.PostStart != nil, path+".lifecycle.postStart", "not supported")
			reject(hooks.PreStop != nil && hooks.PreStop.Sleep == nil, path+".lifecycle.preStop", "only sleep is supported")
		}
		sc := securitycontext.DetermineEffectiveSecurityContext(pod, c)
		reject(isTrue(sc.Privileged), path+".securityContext.privileged", "not supported")
	}
	return faults
}
