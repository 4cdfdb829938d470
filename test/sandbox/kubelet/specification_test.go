package kubelet

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

func TestAnImageIsKnownByItsRepository(t *testing.T) {
	for image, want := range map[string]string{
		"ghcr.io/netlatency/agent":                     "ghcr.io/netlatency/agent",
		"ghcr.io/netlatency/agent:v0.1.0":              "ghcr.io/netlatency/agent",
		"ghcr.io/netlatency/agent@sha256:abc":          "ghcr.io/netlatency/agent",
		"ghcr.io/netlatency/agent:v0.1.0@sha256:abc":   "ghcr.io/netlatency/agent",
		"registry.example:5000/netlatency/agent":       "registry.example:5000/netlatency/agent",
		"registry.example:5000/netlatency/agent:1.2.3": "registry.example:5000/netlatency/agent",
	} {
		if got := repository(image); got != want {
			t.Errorf("%s: got %s", image, got)
		}
	}
}

func TestAContainerRunsAsItsSecurityContextSays(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*v1.Pod)
		want   identity
	}{
		{"the pod's", func(*v1.Pod) {}, identity{65532, 65532, 65532, []int{65532}}},
		{"the container's own wins", func(p *v1.Pod) { p.Spec.Containers[0].SecurityContext.RunAsUser = ptr.To[int64](7) }, identity{7, 65532, 65532, []int{65532}}},
		{"nothing said is the image's", func(p *v1.Pod) { p.Spec.SecurityContext = nil }, identity{65532, 65532, -1, nil}},
		{"a user that the image does not know", func(p *v1.Pod) {
			p.Spec.SecurityContext = &v1.PodSecurityContext{RunAsUser: ptr.To[int64](7), SupplementalGroups: []int64{8, 9}}
		}, identity{7, 0, -1, []int{8, 9}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			pod := agentPod(test.change)
			got, err := identify(pod, &pod.Spec.Containers[0])
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(identity{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
