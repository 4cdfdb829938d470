package target

import (
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/utils/ptr"
)

func TestAgentsOfNodesThatAreGoneLeaveTheirSlice(t *testing.T) {
	w := newTold(t, []runtime.Object{&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "known"}}})
	w.agents = "netlatency-agent"
	agents := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: toAgents.Namespace, Name: "netlatency-agent-x", Labels: map[string]string{discoveryv1.LabelServiceName: w.agents},
	}}
	for _, node := range []string{"known", "new to us", "gone", ""} {
		e := discoveryv1.Endpoint{Addresses: []string{"10.0.0.1"}}
		if node != "" {
			e.NodeName = &node
		}
		agents.Endpoints = append(agents.Endpoints, e)
	}
	others := agents.DeepCopy()
	others.Name, others.Labels = "others", map[string]string{discoveryv1.LabelServiceName: "others"}
	api := w.client.DiscoveryV1().EndpointSlices(toAgents.Namespace)
	for _, slice := range []*discoveryv1.EndpointSlice{agents, others} {
		if _, err := api.Create(w.ctx, slice, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.client.CoreV1().Nodes().Create(w.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "new to us"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}

	updates := func() (n int) {
		for _, action := range w.client.Actions() {
			if action.Matches("update", "endpointslices") {
				n++
			}
		}
		return n
	}
	for range 2 { // the second time there is nothing to do
		if err := w.dropGone(w.ctx); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string][]string{agents.Name: {"known", "new to us", ""}, others.Name: {"known", "new to us", "gone", ""}} {
		slice, err := api.Get(w.ctx, name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, e := range slice.Endpoints {
			left = append(left, ptr.Deref(e.NodeName, ""))
		}
		if diff := gocmp.Diff(want, left); diff != "" {
			t.Errorf("nodes in %s (-want +got):\n%s", name, diff)
		}
	}
	if n := updates(); n != 1 {
		t.Errorf("%d updates, want one", n)
	}
}
