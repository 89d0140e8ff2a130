package oci

import (
	"fmt"
	"regexp"
	"slices"
)

// A saved is what docker save says of one image. Paths are those of the archive.
type saved struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// digestInName is in the names of configurations: docker's HEX.json, and blobs/sha256/HEX.
var digestInName = regexp.MustCompile(`^(?:sha256:|blobs/sha256/)?([0-9a-f]{64})(?:\.json)?$`)

// openSaved reads what docker save wrote. Layers are checked by the configuration's digests of them, and that by its
// own name.
func openSaved(s Source, tag string) (*Image, error) {
	var all []saved
	if err := readJSON(s, saveFile, -1, "", &all); err != nil {
		return nil, err
	}
	chosen, err := chooseSaved(all, tag)
	if err != nil {
		return nil, err
	}
	m := digestInName.FindStringSubmatch(chosen.Config)
	if m == nil {
		return nil, fmt.Errorf("%w: configuration %.100q is not named by its digest", ErrFormat, chosen.Config)
	}
	image := &Image{Digest: "sha256:" + m[1]}
	if len(chosen.RepoTags) > 0 {
		image.Tag = chosen.RepoTags[0]
	}
	var conf config
	if err := readJSON(s, chosen.Config, -1, image.Digest, &conf); err != nil {
		return nil, err
	}
	if err := conf.check(len(chosen.Layers)); err != nil {
		return nil, err
	}
	for i, name := range chosen.Layers {
		image.Layers = append(image.Layers, layer{source: s, name: name, size: -1, diffID: conf.RootFS.DiffIDs[i]}.open)
	}
	return image, nil
}

func chooseSaved(all []saved, tag string) (saved, error) {
	if len(all) == 0 || len(all) > maxManifests {
		return saved{}, fmt.Errorf("%w: %d images", ErrFormat, len(all))
	}
	var tags []string
	for _, s := range all {
		if tag != "" && slices.Contains(s.RepoTags, tag) || tag == "" && len(all) == 1 {
			return s, nil
		}
		tags = append(tags, s.RepoTags...)
	}
	if tag != "" {
		return saved{}, fmt.Errorf("%w with tag %q", ErrPlatform, tag)
	}
	return saved{}, fmt.Errorf("%w: %q", ErrSeveral, tags)
}
