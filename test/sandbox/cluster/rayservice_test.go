package cluster

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

func TestRayServiceChanges(t *testing.T) {
	original, err := ReadRayService("testdata/rayservice.yaml")
	if err != nil {
		t.Fatal(err)
	}
	pinned := &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
		RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
			MatchExpressions: []corev1.NodeSelectorRequirement{{Key: "provider", Operator: corev1.NodeSelectorOpIn, Values: []string{"near"}}},
		}}},
	}}
	for name, tc := range map[string]struct {
		change func(*RayService) error
		want   map[string]any // what becomes of the worker group
	}{
		"more workers than maxReplicas raise it": {
			change: func(r *RayService) error { return r.SetWorkers(96) },
			want:   map[string]any{"replicas": int64(96), "minReplicas": int64(2), "maxReplicas": int64(96)},
		},
		"fewer workers than minReplicas lower it": {
			change: func(r *RayService) error { return r.SetWorkers(1) },
			want:   map[string]any{"replicas": int64(1), "minReplicas": int64(1), "maxReplicas": int64(10)},
		},
		"scheduler": {
			change: func(r *RayService) error { return r.SetSchedulerName("netlatency-scheduler") },
			want:   map[string]any{"schedulerName": "netlatency-scheduler"},
		},
		"requests": {
			change: func(r *RayService) error {
				return r.SetWorkerRequests(corev1.ResourceList{corev1.ResourceCPU: quantity("2")})
			},
			want: map[string]any{"containers": []any{map[string]any{
				"name": "ray-worker", "image": "rayproject/ray:2.52.0",
				"resources": map[string]any{"requests": map[string]any{"cpu": "2"}},
			}}},
		},
		"affinity": {
			change: func(r *RayService) error { return r.SetWorkerAffinity(pinned) },
			want: map[string]any{"affinity": map[string]any{"nodeAffinity": map[string]any{
				"requiredDuringSchedulingIgnoredDuringExecution": map[string]any{"nodeSelectorTerms": []any{map[string]any{
					"matchExpressions": []any{map[string]any{"key": "provider", "operator": "In", "values": []any{"near"}}},
				}}},
			}}},
		},
		"no affinity any more": {
			change: func(r *RayService) error {
				if err := r.SetWorkerAffinity(pinned); err != nil {
					return err
				}
				return r.SetWorkerAffinity(nil)
			},
			want: map[string]any{"affinity": nil},
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := original.DeepCopy()
			if err := tc.change(r); err != nil {
				t.Fatal(err)
			}
			groups, err := workerGroups(r.Object(), serviceWorkerGroups...)
			if err != nil {
				t.Fatal(err)
			}
			group := groups[0].(map[string]any)
			pod := group["template"].(map[string]any)["spec"].(map[string]any)
			got := map[string]any{}
			for field := range tc.want {
				if got[field] = group[field]; got[field] == nil {
					got[field] = pod[field]
				}
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("worker group (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(head(original), head(r)); diff != "" {
				t.Errorf("the head changed:\n%s", diff)
			}
		})
	}
	if got, want := original.Key(), (types.NamespacedName{Name: "search"}); got != want {
		t.Errorf("key %v: changes of a copy reached the original", got)
	}
}

func head(r *RayService) any {
	return r.Object().Object["spec"].(map[string]any)["rayClusterConfig"].(map[string]any)["headGroupSpec"]
}

func TestFileWithoutOneUsableRayServiceIsRefused(t *testing.T) {
	const usable = "{apiVersion: ray.io/v1, kind: RayService, metadata: {name: a}, spec: {rayClusterConfig: {workerGroupSpecs: [{}]}}}"
	for name, tc := range map[string]struct{ data, want string }{
		"none":             {"{apiVersion: v1, kind: Service, metadata: {name: a}}", "has no RayService"},
		"two":              {usable + "\n---\n" + usable, "more than one"},
		"no worker groups": {"{apiVersion: ray.io/v1, kind: RayService, metadata: {name: a}}", "no workerGroupSpecs"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := ParseRayService([]byte(tc.data)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want one that contains %q", err, tc.want)
			}
		})
	}
}
