package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

// write writes the images and their lists as an OCI layout, and the lists as
// files.
func (b *built) write(directory string) error {
	to := filepath.Join(directory, b.program.name)
	if err := os.RemoveAll(to); err != nil {
		return err
	}
	path, err := layout.Write(to, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendIndex(b.index, layout.WithAnnotations(map[string]string{"org.opencontainers.image.ref.name": b.release.version})); err != nil {
		return err
	}
	for _, list := range b.bills {
		if err := path.AppendImage(list.image); err != nil {
			return err
		}
		if err := os.WriteFile(to+"-"+list.platform.Architecture+".spdx.json", list.content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// push sends the images to a registry, tagged with their version, and the lists
// that refer to them.
func (b *built) push(prefix string) error {
	tag, err := name.NewTag(fmt.Sprintf("%s/%s:%s", prefix, b.program.name, b.release.version))
	if err != nil {
		return err
	}
	credentials := remote.WithAuthFromKeychain(authn.DefaultKeychain)
	if err := remote.WriteIndex(tag, b.index, credentials); err != nil {
		return fmt.Errorf("push %s: %w", tag, err)
	}
	for _, list := range b.bills {
		digest, err := list.image.Digest()
		if err != nil {
			return err
		}
		if err := remote.Write(tag.Digest(digest.String()), list.image, credentials); err != nil {
			return fmt.Errorf("push what %s is made of: %w", tag, err)
		}
	}
	return nil
}
