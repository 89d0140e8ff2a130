// Package oci reads container images from directories and archives: OCI image layouts (image specification 1.1)
// and what docker save writes. It trusts nothing but digests, and needs neither a registry nor an engine.
package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"

	"torno.internal/images/tree"
)

// Bounds of what describes an image.
const (
	maxJSON      = 8 << 20 // bytes of an index, manifest or configuration
	maxLayers    = 512
	maxManifests = 1 << 10 // in an index
	maxNested    = 4       // indexes in one another
)

var (
	// ErrFormat means that something is no image, or a damaged one.
	ErrFormat = errors.New("not a container image")
	// ErrDigest means that content is not what its digest says.
	ErrDigest = errors.New("digest mismatch")
	// ErrPlatform means that no image is for this machine.
	ErrPlatform = errors.New("no image for linux/" + runtime.GOARCH)
	// ErrSeveral means that there are several images to choose from.
	ErrSeveral = errors.New("several images")
)

// An Image is one that was found.
type Image struct {
	Digest string // of its manifest; of its configuration where docker save wrote none. sha256:HEX
	Tag    string // that it is known by; may be empty
	Layers []tree.Layer
}

// Files of a layout, and of docker save.
const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"
	saveFile   = "manifest.json"
)

// IsImage reports whether a source holds an image, of either kind.
func IsImage(s Source) bool {
	if s.Has(layoutFile) && s.Has(indexFile) {
		return true
	}
	return s.Has(saveFile) && !s.Has("etc") && !s.Has("usr") && !s.Has("bin") // which root file systems have
}

// Open finds the image of that tag, or the only one for this machine if tag is empty.
func Open(s Source, tag string) (*Image, error) {
	if s.Has(layoutFile) && s.Has(indexFile) {
		return openLayout(s, tag)
	}
	return openSaved(s, tag)
}

// A descriptor says what a blob is.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

func (p platform) ours() bool { return p.OS == "linux" && p.Architecture == runtime.GOARCH }

// A manifest is an image's manifest or an index: only one of its lists is there.
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	Config        descriptor   `json:"config"`
	Layers        []descriptor `json:"layers"`
	Manifests     []descriptor `json:"manifests"`
}

// A config is what of an image's configuration matters here.
type config struct {
	platform
	RootFS struct {
		Type    string   `json:"type"`
		DiffIDs []string `json:"diff_ids"`
	} `json:"rootfs"`
}

// tagAnnotation names an image in the index of a layout.
const tagAnnotation = "org.opencontainers.image.ref.name"

// A candidate is a manifest that may be the one.
type candidate struct {
	descriptor
	tag string
}

func openLayout(s Source, tag string) (*Image, error) {
	var version struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := readJSON(s, layoutFile, -1, "", &version); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(version.Version, "1.") {
		return nil, fmt.Errorf("%w: layout version %q", ErrFormat, version.Version)
	}
	var index manifest
	if err := readJSON(s, indexFile, -1, "", &index); err != nil {
		return nil, err
	}
	c := chooser{source: s, tag: tag}
	if err := c.visit(index, "", 0); err != nil {
		return nil, err
	}
	chosen, err := c.choose()
	if err != nil {
		return nil, err
	}
	return openManifest(s, chosen)
}

// A chooser collects manifests for this machine.
type chooser struct {
	source Source
	tag    string
	found  []candidate
	others bool // for other machines, or by other tags
}

// visit goes through an index, which is known by tag.
func (c *chooser) visit(index manifest, tag string, depth int) error {
	if index.SchemaVersion != 2 || len(index.Manifests) > maxManifests || depth > maxNested {
		return fmt.Errorf("%w: an index of version %d with %d manifests, %d deep", ErrFormat, index.SchemaVersion, len(index.Manifests), depth)
	}
	for _, d := range index.Manifests {
		own := tag
		if name := d.Annotations[tagAnnotation]; name != "" && tag == "" {
			own = name
		}
		switch kind := mediaTypes[d.MediaType]; {
		case kind == indexMedia:
			var nested manifest
			if err := readBlob(c.source, d, &nested); err != nil {
				return err
			}
			if err := c.visit(nested, own, depth+1); err != nil {
				return err
			}
		case kind != manifestMedia || d.Platform != nil && !d.Platform.ours() || c.tag != "" && own != c.tag:
			c.others = true
		default:
			if len(c.found) == maxManifests {
				return fmt.Errorf("%w: more than %d manifests", ErrFormat, maxManifests)
			}
			c.found = append(c.found, candidate{d, own})
		}
	}
	return nil
}

// choose returns the one image that is meant. The same under several tags is one.
func (c *chooser) choose() (candidate, error) {
	var tags []string
	for _, f := range c.found {
		if f.Digest != c.found[0].Digest {
			tags = append(tags, f.tag)
		}
	}
	switch {
	case len(c.found) == 0 && c.tag != "":
		return candidate{}, fmt.Errorf("%w with tag %q", ErrPlatform, c.tag)
	case len(c.found) == 0:
		return candidate{}, ErrPlatform
	case len(tags) > 0:
		tags = append(tags, c.found[0].tag)
		slices.Sort(tags)
		return candidate{}, fmt.Errorf("%w: %q", ErrSeveral, slices.Compact(tags))
	}
	return c.found[0], nil
}

// openManifest checks a manifest and its configuration, and prepares its layers, which are checked as they are read.
func openManifest(s Source, c candidate) (*Image, error) {
	var m manifest
	if err := readBlob(s, c.descriptor, &m); err != nil {
		return nil, err
	}
	var conf config
	if err := readBlob(s, m.Config, &conf); err != nil {
		return nil, err
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("%w: manifest version %d", ErrFormat, m.SchemaVersion)
	}
	if err := conf.check(len(m.Layers)); err != nil {
		return nil, err
	}
	image := &Image{Digest: c.Digest, Tag: c.tag}
	for i, d := range m.Layers {
		name, err := blobName(d.Digest)
		if err != nil {
			return nil, err
		}
		if mediaTypes[d.MediaType] != layerMedia {
			return nil, fmt.Errorf("%w: layer %d is a %q", ErrFormat, i+1, d.MediaType)
		}
		image.Layers = append(image.Layers, layer{s, name, d.Size, d.Digest, conf.RootFS.DiffIDs[i]}.open)
	}
	return image, nil
}

// check finds out whether an image of that many layers runs here.
func (c config) check(layers int) error {
	switch {
	case !c.ours():
		return fmt.Errorf("%w; it is for %.40s/%.40s", ErrPlatform, c.OS, c.Architecture)
	case c.RootFS.Type != "layers" || layers != len(c.RootFS.DiffIDs) || layers == 0 || layers > maxLayers:
		return fmt.Errorf("%w: %d layers, and digests of %d (%.40q)", ErrFormat, layers, len(c.RootFS.DiffIDs), c.RootFS.Type)
	}
	for _, d := range c.RootFS.DiffIDs {
		if _, err := blobName(d); err != nil {
			return err
		}
	}
	return nil
}

// A media is what a blob can be to us.
type media uint8

const (
	indexMedia media = iota + 1
	manifestMedia
	layerMedia
)

// mediaTypes are those that are understood. How a layer is compressed shows in its first bytes.
var mediaTypes = map[string]media{
	"application/vnd.oci.image.index.v1+json":                      indexMedia,
	"application/vnd.docker.distribution.manifest.list.v2+json":    indexMedia,
	"application/vnd.oci.image.manifest.v1+json":                   manifestMedia,
	"application/vnd.docker.distribution.manifest.v2+json":         manifestMedia,
	"application/vnd.oci.image.layer.v1.tar":                       layerMedia,
	"application/vnd.oci.image.layer.v1.tar+gzip":                  layerMedia,
	"application/vnd.oci.image.layer.v1.tar+zstd":                  layerMedia,
	"application/vnd.oci.image.layer.nondistributable.v1.tar":      layerMedia,
	"application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": layerMedia,
	"application/vnd.oci.image.layer.nondistributable.v1.tar+zstd": layerMedia,
	"application/vnd.docker.image.rootfs.diff.tar":                 layerMedia,
	"application/vnd.docker.image.rootfs.diff.tar.gzip":            layerMedia,
	"application/vnd.docker.image.rootfs.diff.tar.zstd":            layerMedia,
	"application/vnd.docker.image.rootfs.foreign.diff.tar.gzip":    layerMedia,
}

// readBlob reads the JSON that a descriptor is about.
func readBlob(s Source, d descriptor, v any) error {
	name, err := blobName(d.Digest)
	if err != nil {
		return err
	}
	if d.Size < 0 || d.Size > maxJSON {
		return fmt.Errorf("%w: %q has %d bytes", ErrFormat, name, d.Size)
	}
	return readJSON(s, name, d.Size, d.Digest, v)
}

// readJSON reads a file of that size and digest; -1 and "": whatever it has.
func readJSON(s Source, name string, size int64, digest string, v any) error {
	f, n, err := s.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if n > maxJSON || size >= 0 && n != size {
		return fmt.Errorf("%w: %q has %d bytes, want %d", ErrFormat, name, n, size)
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return err
	}
	if digest != "" && digestOf(b) != digest {
		return fmt.Errorf("%w: %q", ErrDigest, name)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %q: %w", ErrFormat, name, err)
	}
	return nil
}
