package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// file is one file of a volume.
type file struct {
	content []byte
	mode    os.FileMode
	// token says that the file is a credential for the pod's own user only.
	token bool
}

// volumeWriter writes a pod's volumes into folders.
type volumeWriter struct {
	environment
	// uid is the pod's user and fsGroup the group that may read its volumes
	// (-1: none), as this process's user namespace knows them.
	uid, fsGroup int
}

// write makes the volume in the folder, or renews it there. It returns the
// time by which a token in it should be renewed; zero when it has none.
func (w volumeWriter) write(ctx context.Context, volume *v1.Volume, folder string) (time.Time, error) {
	if volume.EmptyDir != nil {
		return time.Time{}, w.emptyDir(folder)
	}
	files, renew, err := w.files(ctx, volume)
	if err != nil {
		return time.Time{}, fmt.Errorf("volume %s: %w", volume.Name, err)
	}
	if err := publish(folder, files, w.own); err != nil {
		return time.Time{}, fmt.Errorf("volume %s: %w", volume.Name, err)
	}
	return renew, nil
}

func (w volumeWriter) emptyDir(folder string) error {
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return err
	}
	mode := os.FileMode(0o777)
	if w.fsGroup >= 0 {
		if err := os.Chown(folder, -1, w.fsGroup); err != nil {
			return err
		}
		mode |= os.ModeSetgid
	}
	return os.Chmod(folder, mode) // whatever the umask is
}

// own gives a file the owner and mode that Kubernetes gives it: a token
// belongs to the pod's user, everything is readable by fsGroup.
func (w volumeWriter) own(path string, f file) error {
	uid, mode := -1, f.mode
	if f.token {
		uid, mode = w.uid, 0o600
	}
	if w.fsGroup >= 0 {
		mode |= 0o440
	}
	if err := os.Chown(path, uid, w.fsGroup); err != nil {
		return err
	}
	return os.Chmod(path, mode)
}

// files are the volume's files by path.
func (w volumeWriter) files(ctx context.Context, volume *v1.Volume) (map[string]file, time.Time, error) {
	sources := []v1.VolumeProjection{{}}
	var mode *int32
	switch {
	case volume.ConfigMap != nil:
		c := volume.ConfigMap
		sources[0].ConfigMap = &v1.ConfigMapProjection{LocalObjectReference: c.LocalObjectReference, Items: c.Items, Optional: c.Optional}
		mode = c.DefaultMode
	case volume.Secret != nil:
		s := volume.Secret
		sources[0].Secret = &v1.SecretProjection{LocalObjectReference: v1.LocalObjectReference{Name: s.SecretName}, Items: s.Items, Optional: s.Optional}
		mode = s.DefaultMode
	case volume.DownwardAPI != nil:
		sources[0].DownwardAPI = &v1.DownwardAPIProjection{Items: volume.DownwardAPI.Items}
		mode = volume.DownwardAPI.DefaultMode
	case volume.Projected != nil:
		sources, mode = volume.Projected.Sources, volume.Projected.DefaultMode
	}
	var (
		files   = map[string]file{}
		renewal time.Time
	)
	for _, source := range sources {
		renew, err := w.project(ctx, source, os.FileMode(ptr.Deref(mode, v1.ConfigMapVolumeSourceDefaultMode)), files)
		if err != nil {
			return nil, time.Time{}, err
		}
		if renewal.IsZero() || !renew.IsZero() && renew.Before(renewal) {
			renewal = renew
		}
	}
	return files, renewal, nil
}

// project adds the files of one source of a projected volume.
func (w volumeWriter) project(ctx context.Context, source v1.VolumeProjection, mode os.FileMode, files map[string]file) (renew time.Time, err error) {
	var content map[string][]byte
	switch {
	case source.ConfigMap != nil:
		if content, err = w.configMap(ctx, source.ConfigMap.Name, source.ConfigMap.Optional); err == nil {
			err = items(content, source.ConfigMap.Items, source.ConfigMap.Optional, mode, files)
		}
		return time.Time{}, err
	case source.Secret != nil:
		if content, err = w.secret(ctx, source.Secret.Name, source.Secret.Optional); err == nil {
			err = items(content, source.Secret.Items, source.Secret.Optional, mode, files)
		}
		return time.Time{}, err
	case source.DownwardAPI != nil:
		for _, item := range source.DownwardAPI.Items {
			if item.FieldRef == nil {
				return time.Time{}, fmt.Errorf("downward API item %s: only fieldRef is supported", item.Path)
			}
			value, err := w.field(item.FieldRef.FieldPath)
			if err != nil {
				return time.Time{}, fmt.Errorf("downward API item %s: %w", item.Path, err)
			}
			files[item.Path] = file{content: []byte(value), mode: os.FileMode(ptr.Deref(item.Mode, int32(mode)))}
		}
		return time.Time{}, nil
	case source.ServiceAccountToken != nil:
		token, renew, err := w.token(ctx, source.ServiceAccountToken)
		if err != nil {
			return time.Time{}, err
		}
		files[source.ServiceAccountToken.Path] = file{content: []byte(token), mode: mode, token: true}
		return renew, nil
	default:
		return time.Time{}, errors.New("a projected source must be configMap, secret, downwardAPI or serviceAccountToken")
	}
}

// items adds the keys that are asked for, or all of them.
func items(content map[string][]byte, wanted []v1.KeyToPath, optional *bool, mode os.FileMode, files map[string]file) error {
	if len(wanted) == 0 {
		for key, value := range content {
			files[key] = file{content: value, mode: mode}
		}
	}
	for _, item := range wanted {
		value, found := content[item.Key]
		if !found {
			if isTrue(optional) {
				continue
			}
			return fmt.Errorf("references non-existent config key: %s", item.Key)
		}
		files[item.Path] = file{content: value, mode: os.FileMode(ptr.Deref(item.Mode, int32(mode)))}
	}
	return nil
}

// token asks for a ServiceAccount token that is valid as long as the pod is.
func (w volumeWriter) token(ctx context.Context, source *v1.ServiceAccountTokenProjection) (string, time.Time, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef: &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: w.pod.Name, UID: w.pod.UID,
		},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	asked := time.Now()
	granted, err := w.client.CoreV1().ServiceAccounts(w.pod.Namespace).
		CreateToken(ctx, w.pod.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("token of ServiceAccount %s: %w", w.pod.Spec.ServiceAccountName, err)
	}
	// At 80 % of its life, as Kubernetes' kubelet does.
	life := granted.Status.ExpirationTimestamp.Sub(asked)
	return granted.Status.Token, asked.Add(life * 8 / 10), nil
}

// publish makes the folder hold exactly these files, all of them at once: each
// name is a link through "..data", which is replaced by a rename. Programs
// that watch a mounted ConfigMap rely on that shape.
func publish(folder string, files map[string]file, own func(path string, f file) error) error {
	const current = "..data"
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	version, err := os.MkdirTemp(folder, "..version-")
	if err != nil {
		return err
	}
	if err := os.Chmod(version, 0o755); err != nil {
		return err
	}
	names := map[string]bool{}
	for path, f := range files {
		if !filepath.IsLocal(path) {
			return fmt.Errorf("path %q leads out of the volume", path)
		}
		path = filepath.Clean(path)
		top, _, _ := strings.Cut(path, string(filepath.Separator))
		names[top] = true
		target := filepath.Join(version, path)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, f.content, 0o600); err != nil {
			return err
		}
		if err := own(target, f); err != nil {
			return err
		}
	}
	previous, _ := os.Readlink(filepath.Join(folder, current))
	next := filepath.Join(folder, "..data_next")
	if err := os.Symlink(filepath.Base(version), next); err != nil {
		return err
	}
	if err := os.Rename(next, filepath.Join(folder, current)); err != nil {
		return err
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if !names[entry.Name()] && !strings.HasPrefix(entry.Name(), "..") {
			os.Remove(filepath.Join(folder, entry.Name()))
		}
	}
	for name := range names {
		err := os.Symlink(filepath.Join(current, name), filepath.Join(folder, name))
		if err != nil && !os.IsExist(err) {
			return err
		}
	}
	if previous != "" {
		return os.RemoveAll(filepath.Join(folder, previous))
	}
	return nil
}
