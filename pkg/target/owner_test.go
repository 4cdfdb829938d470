package target

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// Kubernetes deletes what is owned together with its owner.
func TestWhatIsWrittenBelongsToTheAgentsService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agents := service("agents", nil)
		agents.Namespace, agents.UID = toAgents.Namespace, types.UID("first")
		w := newTold(t, []runtime.Object{pod("q-0", "a", at("10.0.0.1")), agents}, qdrantPods())
		w.publish("qdrant ipv4 a=10.0.0.1@") // as before there were owners
		w.agents = agents.Name
		owners := func() map[string][]metav1.OwnerReference {
			t.Helper()
			found := make(map[string][]metav1.OwnerReference)
			slices, err := w.client.DiscoveryV1().EndpointSlices(toAgents.Namespace).List(w.ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, slice := range slices.Items {
				found["slice"] = slice.OwnerReferences
			}
			leases, err := w.client.CoordinationV1().Leases(toAgents.Namespace).List(w.ctx, metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, lease := range leases.Items {
				found["lease"] = lease.OwnerReferences
			}
			return found
		}
		want := func(uid types.UID) {
			t.Helper()
			time.Sleep(2 * publishInterval)
			synctest.Wait()
			reference := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "agents", UID: uid}}
			if diff := gocmp.Diff(map[string][]metav1.OwnerReference{"slice": reference, "lease": reference}, owners()); diff != "" {
				t.Errorf("owners (-want +got):\n%s", diff)
			}
		}
		ctx, stop := context.WithCancel(w.ctx)
		defer synctest.Wait()
		defer stop()
		go w.Run(ctx)
		want("first")
		again := agents.DeepCopy()
		again.UID = "second"
		w.still.put(again)
		want("second")
	})
}

func TestWithoutTheAgentsServiceNothingIsWritten(t *testing.T) {
	w := newTold(t, []runtime.Object{pod("q-0", "a", at("10.0.0.1"))}, qdrantPods())
	w.agents = "agents"
	w.publish()
}
