package cluster

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestEveryKwokStageLeavesTheSandboxsOwnAlone(t *testing.T) {
	c := &Cluster{options: Options{Dir: t.TempDir()}}
	path, err := c.writeKwokStages(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	stages, err := decodeManifests(data)
	if err != nil {
		t.Fatal(err)
	}
	if len(stages) != len(kwokStages) {
		t.Fatalf("%d stages, want %d", len(stages), len(kwokStages))
	}
	for _, s := range stages {
		kind, _, _ := unstructured.NestedString(s.Object, "spec", "resourceRef", "kind")
		expressions, _, _ := unstructured.NestedSlice(s.Object, "spec", "selector", "matchExpressions")
		if len(expressions) < 2 {
			t.Errorf("stage %s lost its own conditions: %v", s.GetName(), expressions)
			continue
		}
		want := map[string]any{"key": kwokExceptions[kind].Key, "operator": "DoesNotExist"}
		if diff := cmp.Diff(any(want), expressions[len(expressions)-1]); diff != "" {
			t.Errorf("stage %s (-want +got):\n%s", s.GetName(), diff)
		}
	}
}

func TestKwokStageOfAnotherKindIsRefused(t *testing.T) {
	for name, stage := range map[string]string{
		"another kind": "spec: {resourceRef: {kind: PersistentVolume}, selector: {matchExpressions: []}}",
		"no selector":  "spec: {resourceRef: {kind: Pod}}",
		"no spec":      "kind: Stage",
	} {
		t.Run(name, func(t *testing.T) {
			if got, err := exceptOurs([]byte(stage)); err == nil {
				t.Errorf("became %s", got)
			}
		})
	}
}

func TestKubeRayFilesAreAdapted(t *testing.T) {
	objects, err := decodeManifests([]byte(`
kind: CustomResourceDefinition
apiVersion: apiextensions.k8s.io/v1
metadata: {name: a}
spec: {versions: [{name: v1alpha1, storage: false}, {name: v1, storage: true}]}
---
kind: ClusterRoleBinding
apiVersion: rbac.authorization.k8s.io/v1
metadata: {name: b}
subjects: [{kind: ServiceAccount, name: kuberay-operator}]
`))
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range objects {
		if err := adaptKubeRay(o); err != nil {
			t.Fatal(err)
		}
	}
	versions, _, _ := unstructured.NestedSlice(objects[0].Object, "spec", "versions")
	if diff := cmp.Diff([]any{map[string]any{"name": "v1", "storage": true}}, versions); diff != "" {
		t.Errorf("versions (-want +got):\n%s", diff)
	}
	subjects, _, _ := unstructured.NestedSlice(objects[1].Object, "subjects")
	if diff := cmp.Diff([]any{map[string]any{"kind": "ServiceAccount", "name": "kuberay-operator", "namespace": kubeRayNamespace}}, subjects); diff != "" {
		t.Errorf("subjects (-want +got):\n%s", diff)
	}
}

func TestOtherKubernetesIsWhatItsModuleRequires(t *testing.T) {
	root, err := repositoryRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, minor := range OtherKubernetes {
		binaries, err := KubernetesOf(minor)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range binaries {
			version := requiredVersion(t, filepath.Join(root, b.module), kubernetesModule)
			if !strings.HasPrefix(version, "v"+minor+".") {
				t.Errorf("%s is built from Kubernetes %q", b.Name, version)
			}
		}
	}
}

// requiredVersion is what the go.mod in dir says, which takes no network: nobody
// has downloaded that module before "make test-skew" builds it.
func requiredVersion(t *testing.T, dir, module string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("read go.mod in %s: %v%s", dir, err, stderrOf(err))
	}
	var file struct {
		Require []struct{ Path, Version string }
	}
	if err := json.Unmarshal(out, &file); err != nil {
		t.Fatal(err)
	}
	for _, required := range file.Require {
		if required.Path == module {
			return required.Version
		}
	}
	return ""
}

func TestKubernetesOfAnotherVersionIsRefused(t *testing.T) {
	want := `kubernetes "1.33": want one of 1.34, 1.35, 1.37, or nothing for the version of our go.mod`
	if _, err := Start(t.Context(), Options{Dir: t.TempDir(), Kubernetes: "1.33"}); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// The Makefile builds the same binaries. With other flags the two would link
// them anew in turn.
func TestMakefileBuildsWithTheSameFlags(t *testing.T) {
	root, err := repositoryRoot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	arguments, err := buildArguments(t.Context(), root, "bin", []Binary{Agent})
	if err != nil {
		t.Fatal(err)
	}
	kubernetes, err := goList(t.Context(), root, "{{.Version}}", kubernetesModule)
	if err != nil {
		t.Fatal(err)
	}
	flags := strings.Replace(arguments[3], "="+kubernetes, "=$(KUBERNETES_VERSION)", 1)
	flags = strings.Replace(flags, "="+describeCommit(t.Context(), root), "=$(VERSION)", 1)
	for _, want := range []string{"export CGO_ENABLED := 0\n", "KUBERNETES_VERSION := " + kubernetes + "\n", "LDFLAGS := " + flags + "\n"} {
		if !strings.Contains(string(makefile), want) {
			t.Errorf("Makefile lacks %q", want)
		}
	}
}
