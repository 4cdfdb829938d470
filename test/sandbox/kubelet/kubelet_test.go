package kubelet

import (
	"os"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/utils/ptr"

	"github.com/netlatency/netlatency/test/sandbox/namespace"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == witness {
		os.Exit(testify(os.Args[2], os.Args[3], os.Args[4]))
	}
	namespace.Enter()
	os.Exit(m.Run())
}

const (
	testNamespace = "netlatency"
	testNode      = "storage-1"
	testImage     = ImagePrefix + "agent"
)

// agentPod is a pod as the API server stores one of the chart's agents: with
// defaults filled in and the ServiceAccount's volume added.
func agentPod(change ...func(*v1.Pod)) *v1.Pod {
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: testNamespace, Name: "agent-x7k2p", UID: "3d0b", Generation: 2,
			Labels: map[string]string{"app": "agent", "x": "from a label"},
		},
		Spec: v1.PodSpec{
			NodeName:                      testNode,
			ServiceAccountName:            "netlatency-agent",
			RestartPolicy:                 v1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: ptr.To[int64](30),
			SecurityContext: &v1.PodSecurityContext{
				RunAsNonRoot: new(true), RunAsUser: ptr.To[int64](65532), RunAsGroup: ptr.To[int64](65532), FSGroup: ptr.To[int64](65532),
				Sysctls: []v1.Sysctl{{Name: pingGroupRange, Value: "65532 65532"}},
			},
			Containers: []v1.Container{{
				Name: "agent", Image: testImage + ":v0.1.0",
				Ports: []v1.ContainerPort{{Name: "http", ContainerPort: 9465}},
				SecurityContext: &v1.SecurityContext{
					AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
					Capabilities: &v1.Capabilities{Drop: []v1.Capability{"ALL"}},
				},
				VolumeMounts: []v1.VolumeMount{{Name: "kube-api-access-1", MountPath: "/var/run/secrets/kubernetes.io/serviceaccount", ReadOnly: true}},
			}},
			Volumes: []v1.Volume{{Name: "kube-api-access-1", VolumeSource: v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{
				DefaultMode: ptr.To[int32](0o644),
				Sources: []v1.VolumeProjection{
					{ServiceAccountToken: &v1.ServiceAccountTokenProjection{Path: "token", ExpirationSeconds: ptr.To[int64](3607)}},
					{ConfigMap: &v1.ConfigMapProjection{
						LocalObjectReference: v1.LocalObjectReference{Name: "kube-root-ca.crt"},
						Items:                []v1.KeyToPath{{Key: "ca.crt", Path: "ca.crt"}},
					}},
					{DownwardAPI: &v1.DownwardAPIProjection{Items: []v1.DownwardAPIVolumeFile{
						{Path: "namespace", FieldRef: &v1.ObjectFieldSelector{APIVersion: "v1", FieldPath: "metadata.namespace"}},
					}}},
				},
			}}}},
		},
	}
	for _, c := range change {
		c(pod)
	}
	return pod
}

// httpProbe is a probe as the API server stores it.
func httpProbe(path string, change ...func(*v1.Probe)) *v1.Probe {
	probe := &v1.Probe{
		ProbeHandler:     v1.ProbeHandler{HTTPGet: &v1.HTTPGetAction{Path: path, Port: intstr.FromString("http"), Scheme: v1.URISchemeHTTP}},
		PeriodSeconds:    10,
		TimeoutSeconds:   1,
		SuccessThreshold: 1,
		FailureThreshold: 3,
	}
	for _, c := range change {
		c(probe)
	}
	return probe
}

// apiServer is a fake one with what pods mount, which grants tokens.
func apiServer(objects ...runtime.Object) *fake.Clientset {
	client := fake.NewClientset(append([]runtime.Object{
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": "root certificate"}},
		&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "config"}, Data: map[string]string{"config.yaml": "kind: Test", "key": "from a ConfigMap"}},
		&v1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: testNamespace, Name: "secret"}, Data: map[string][]byte{"key": []byte("from a Secret")}},
		&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: testNode}, Status: v1.NodeStatus{Allocatable: v1.ResourceList{
			v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("8Gi"),
		}}},
	}, objects...)...)
	client.PrependReactor("create", "serviceaccounts", func(action clienttesting.Action) (bool, runtime.Object, error) {
		create, ok := action.(clienttesting.CreateActionImpl)
		if !ok || create.GetSubresource() != "token" {
			return false, nil, nil
		}
		request := create.GetObject().(*authenticationv1.TokenRequest).DeepCopy()
		request.Status.Token = "token of " + create.Name + " for " + request.Spec.BoundObjectRef.Name
		life := time.Duration(ptr.Deref(request.Spec.ExpirationSeconds, 3600)) * time.Second
		request.Status.ExpirationTimestamp = metav1.NewTime(time.Now().Add(life))
		return true, request, nil
	})
	return client
}
