package kubelet

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// contents are a volume's files as a pod sees them: path to mode and content.
func contents(t *testing.T, folder string) map[string]string {
	t.Helper()
	files := map[string]string{}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if strings.HasPrefix(entry.Name(), "..") {
			continue
		}
		resolved, err := filepath.EvalSymlinks(filepath.Join(folder, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(resolved, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			content, err := os.ReadFile(path)
			name := entry.Name() + strings.TrimPrefix(path, resolved)
			files[name] = info.Mode().Perm().String() + " " + string(content)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func testWriter() volumeWriter {
	return volumeWriter{environment: testEnvironment(agentPod()), uid: os.Getuid(), fsGroup: -1}
}

func TestAVolumeHoldsWhatItsSourceSays(t *testing.T) {
	config := v1.LocalObjectReference{Name: "config"}
	for _, test := range []struct {
		name   string
		source v1.VolumeSource
		want   map[string]string
	}{
		{
			"a ConfigMap",
			v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: config}},
			map[string]string{"config.yaml": "-rw-r--r-- kind: Test", "key": "-rw-r--r-- from a ConfigMap"},
		},
		{
			"some keys of a ConfigMap, at other paths, with a mode",
			v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: config, DefaultMode: ptr.To[int32](0o440), Items: []v1.KeyToPath{
				{Key: "key", Path: "deep/down"}, {Key: "config.yaml", Path: "own", Mode: ptr.To[int32](0o400)},
			}}},
			map[string]string{"deep/down": "-r--r----- from a ConfigMap", "own": "-r-------- kind: Test"},
		},
		{
			"a Secret",
			v1.VolumeSource{Secret: &v1.SecretVolumeSource{SecretName: "secret"}},
			map[string]string{"key": "-rw-r--r-- from a Secret"},
		},
		{
			"an optional ConfigMap that is not there",
			v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "absent"}, Optional: new(true)}},
			map[string]string{},
		},
		{
			"the ServiceAccount's volume, its token for the pod's user only",
			agentPod().Spec.Volumes[0].VolumeSource,
			map[string]string{
				"token":     "-rw------- token of netlatency-agent for agent-x7k2p",
				"ca.crt":    "-rw-r--r-- root certificate",
				"namespace": "-rw-r--r-- netlatency",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "volume")
			if _, err := testWriter().write(t.Context(), &v1.Volume{Name: "v", VolumeSource: test.source}, folder); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, contents(t, folder)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestATokenIsToBeRenewedAtFourFifthsOfItsLife(t *testing.T) {
	before := time.Now()
	renew, err := testWriter().write(t.Context(), &agentPod().Spec.Volumes[0], t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	// The granted life is counted from when the token was asked for, which
	// lies between before and now.
	const life = 3607 * time.Second
	earliest, latest := before.Add(life*8/10), time.Now().Add(life*8/10+time.Second)
	if renew.Before(earliest) || renew.After(latest) {
		t.Errorf("renewed at %s, want between %s and %s", renew, earliest, latest)
	}
}

func TestARenewedVolumeHoldsNothingOld(t *testing.T) {
	folder := t.TempDir()
	keep := func(string, file) error { return nil }
	for _, files := range []map[string]file{
		{"a": {content: []byte("1")}, "gone": {content: []byte("1")}, "folder/b": {content: []byte("1")}},
		{"a": {content: []byte("2")}, "folder/c": {content: []byte("2")}},
	} {
		if err := publish(folder, files, keep); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"a": "-rw------- 2", "folder/c": "-rw------- 2"}
	if diff := cmp.Diff(want, contents(t, folder)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	versions, _ := filepath.Glob(filepath.Join(folder, "..version-*"))
	if len(versions) != 1 {
		t.Errorf("old versions are left: %v", versions)
	}
}

func TestAVolumeWithoutItsSourceIsAnError(t *testing.T) {
	for name, source := range map[string]v1.VolumeSource{
		"no such ConfigMap": {ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "absent"}}},
		"no such Secret":    {Secret: &v1.SecretVolumeSource{SecretName: "absent"}},
		"no such key": {ConfigMap: &v1.ConfigMapVolumeSource{
			LocalObjectReference: v1.LocalObjectReference{Name: "config"}, Items: []v1.KeyToPath{{Key: "absent", Path: "x"}},
		}},
		"a path that leads out": {ConfigMap: &v1.ConfigMapVolumeSource{
			LocalObjectReference: v1.LocalObjectReference{Name: "config"}, Items: []v1.KeyToPath{{Key: "key", Path: "../x"}},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := testWriter().write(t.Context(), &v1.Volume{Name: "v", VolumeSource: source}, t.TempDir())
			if err == nil || !strings.Contains(err.Error(), "volume v") {
				t.Errorf("got error %v", err)
			}
		})
	}
}
