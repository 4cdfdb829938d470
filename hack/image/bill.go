package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"net/url"
	"runtime/debug"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"
)

// spdxJSON is the media type of SPDX documents, by IANA.
const spdxJSON = "application/spdx+json"

// bill is the list of what is in an image.
type bill struct {
	platform v1.Platform
	content  []byte
	// image is the list as a registry keeps it, with the image as its subject.
	image v1.Image
}

// billOf lists the modules that the linker says a binary is made of.
func billOf(p program, of release, platform v1.Platform, binary string, image v1.Image) (bill, error) {
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		return bill{}, fmt.Errorf("what it is made of: %w", err)
	}
	subject, err := partial.Descriptor(image)
	if err != nil {
		return bill{}, err
	}
	subject.Platform = &platform

	const imageID, programID = "image", "program"
	contains := func(a, b common.ElementID, kind string) *v2_3.Relationship {
		return &v2_3.Relationship{RefA: common.DocElementID{ElementRefID: a}, RefB: common.DocElementID{ElementRefID: b}, Relationship: kind}
	}
	document := &v2_3.Document{
		SPDXVersion:       v2_3.Version,
		DataLicense:       v2_3.DataLicense,
		SPDXIdentifier:    "DOCUMENT",
		DocumentName:      fmt.Sprintf("netlatency %s %s for %s", p.name, of.version, platform),
		DocumentNamespace: fmt.Sprintf("%s/spdx/%s/%s", source, p.name, subject.Digest.Hex),
		CreationInfo: &v2_3.CreationInfo{
			Creators: []common.Creator{{CreatorType: "Tool", Creator: "netlatency hack/image"}},
			Created:  of.created.Format(time.RFC3339),
		},
		Packages: []*v2_3.Package{
			{
				PackageSPDXIdentifier: imageID, PackageName: p.name, PackageVersion: subject.Digest.String(),
				PackageDownloadLocation: unsaid, PrimaryPackagePurpose: "CONTAINER",
				PackageLicenseConcluded: unsaid, PackageLicenseDeclared: unsaid, PackageCopyrightText: unsaid,
			},
			module(programID, debug.Module{Path: info.Main.Path, Version: of.version}, "Apache-2.0"),
		},
		Relationships: []*v2_3.Relationship{contains("DOCUMENT", imageID, "DESCRIBES"), contains(imageID, programID, "CONTAINS")},
	}
	add := func(from common.ElementID, m debug.Module, kind string) {
		id := common.ElementID(fmt.Sprintf("module-%d", len(document.Packages)))
		document.Packages = append(document.Packages, module(id, m, unsaid))
		document.Relationships = append(document.Relationships, contains(from, id, kind))
	}
	// Go's own library is a module to those who look for known faults.
	add(programID, debug.Module{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}, "DEPENDS_ON")
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		add(programID, *m, "DEPENDS_ON")
	}
	if p.roots {
		add(imageID, rootsModule(), "CONTAINS")
	}

	var text bytes.Buffer
	if err := json.Write(document, &text, json.Indent("  ")); err != nil {
		return bill{}, err
	}
	made := bill{platform: platform, content: text.Bytes()}
	made.image, err = mutate.AppendLayers(mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), spdxJSON), static.NewLayer(made.content, spdxJSON))
	if err != nil {
		return bill{}, err
	}
	made.image = mutate.Subject(made.image, *subject).(v1.Image)
	return made, nil
}

// unsaid is SPDX's word for what the document does not say.
const unsaid = "NOASSERTION"

func module(id common.ElementID, m debug.Module, license string) *v2_3.Package {
	return &v2_3.Package{
		PackageSPDXIdentifier:     id,
		PackageName:               m.Path,
		PackageVersion:            m.Version,
		PackageDownloadLocation:   unsaid,
		IsFilesAnalyzedTagPresent: true, // and the tag says no
		PackageLicenseConcluded:   unsaid,
		PackageLicenseDeclared:    license,
		PackageCopyrightText:      unsaid,
		PackageExternalReferences: []*v2_3.PackageExternalReference{{
			Category: "PACKAGE-MANAGER", RefType: "purl",
			Locator: "pkg:golang/" + strings.ToLower(m.Path) + "@" + url.QueryEscape(m.Version),
		}},
	}
}

// rootsModule is where the roots come from.
func rootsModule() debug.Module {
	const path = "golang.org/x/crypto/x509roots/fallback"
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == path {
				return *m
			}
		}
	}
	return debug.Module{Path: path}
}
