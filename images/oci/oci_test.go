package oci

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"torno.internal/images/tree"
)

// files are a Source in memory.
type files map[string][]byte

func (f files) Has(name string) bool { return f[name] != nil }

func (f files) Open(name string) (io.ReadCloser, int64, error) {
	b, ok := f[name]
	if !ok {
		return nil, 0, fs.ErrNotExist
	}
	return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
}

func (f files) blob(mediaType string, b []byte) descriptor {
	d := descriptor{MediaType: mediaType, Digest: digestOf(b), Size: int64(len(b))}
	f["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")] = b
	return d
}

func (f files) json(mediaType string, v any) descriptor {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return f.blob(mediaType, b)
}

// tarOf returns an archive of files, by name and content in turn.
func tarOf(pairs ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := w.WriteHeader(&tar.Header{Name: pairs[i], Mode: 0o644, Size: int64(len(pairs[i+1])), Typeflag: tar.TypeReg}); err != nil {
			panic(err)
		}
		_, _ = io.WriteString(w, pairs[i+1])
	}
	_ = w.Close()
	return b.Bytes()
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = w.Write(b)
	_ = w.Close()
	return out.Bytes()
}

func zstded(b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return w.EncodeAll(b, nil)
}

const (
	here         = runtime.GOARCH
	other        = "s390x"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
)

// image adds an image of three layers, for one platform, and returns its manifest.
func (f files) image(arch, says string) descriptor {
	layers := [][]byte{tarOf("a", "1", "b", says), tarOf(".wh.a", "", "c/d", "2"), tarOf("c/e", "3")}
	var conf config
	conf.platform = platform{OS: "linux", Architecture: arch}
	conf.RootFS.Type = "layers"
	for _, l := range layers {
		conf.RootFS.DiffIDs = append(conf.RootFS.DiffIDs, digestOf(l))
	}
	return f.json(manifestType, manifest{SchemaVersion: 2,
		Config: f.json("application/vnd.oci.image.config.v1+json", conf),
		Layers: []descriptor{
			f.blob(layerType, layers[0]), f.blob(layerType+"+gzip", gzipped(layers[1])), f.blob(layerType+"+zstd", zstded(layers[2])),
		},
	})
}

func (f files) index(manifests ...descriptor) files {
	b, err := json.Marshal(manifest{SchemaVersion: 2, Manifests: manifests})
	if err != nil {
		panic(err)
	}
	f["index.json"] = b
	f["oci-layout"] = []byte(`{"imageLayoutVersion":"1.0.0"}`)
	return f
}

func tagged(d descriptor, tag string) descriptor {
	d.Annotations = map[string]string{tagAnnotation: tag}
	return d
}

func on(d descriptor, os, arch string) descriptor {
	d.Platform = &platform{OS: os, Architecture: arch}
	return d
}

// names returns the files that an image holds, with their content.
func names(i *Image) (string, error) {
	t, err := tree.Merge(i.Layers...)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.WriteTar(&b); err != nil {
		return "", err
	}
	var all []string
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if err == io.EOF {
			slices.Sort(all)
			return strings.Join(all, " "), nil
		}
		if err != nil {
			return "", err
		}
		content, err := io.ReadAll(r)
		if err != nil {
			return "", err
		}
		if h.Typeflag == tar.TypeReg {
			all = append(all, h.Name+"="+string(content))
		}
	}
}

func TestLayout(t *testing.T) {
	several := files{}
	several.index(tagged(several.image(here, "one"), "v1"), tagged(several.image(here, "two"), "v2"))
	multi := files{}
	multi.index(tagged(multi.json(indexType, manifest{SchemaVersion: 2, Manifests: []descriptor{
		on(multi.image(other, "theirs"), "linux", other), on(multi.image(here, "ours"), "linux", here),
		on(multi.json(manifestType, manifest{}), "unknown", "unknown"), // an attestation
		{MediaType: "application/vnd.example+json", Digest: "none"},
	}}), "v1"))
	same := files{}
	same.index(tagged(same.image(here, "one"), "v1"), tagged(same.image(here, "one"), "latest"))
	for _, c := range []struct {
		name  string
		from  files
		tag   string
		want  string
		error error
	}{
		{"one image", files{}.index(), "", "", ErrPlatform},
		{"for two machines", multi, "", "b=ours c/d=2 c/e=3", nil},
		{"for two machines, by tag", multi, "v1", "b=ours c/d=2 c/e=3", nil},
		{"no such tag", multi, "v9", "", ErrPlatform},
		{"several", several, "", "", ErrSeveral},
		{"several, by tag", several, "v2", "b=two c/d=2 c/e=3", nil},
		{"one by two tags", same, "", "b=one c/d=2 c/e=3", nil},
	} {
		image, err := Open(c.from, c.tag)
		if err == nil {
			var got string
			if got, err = names(image); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
		if !errors.Is(err, c.error) {
			t.Errorf("%s: %v, want %v", c.name, err, c.error)
		}
	}
}

// Every byte of a layout that matters is covered by a digest: whatever is changed, the image is refused.
func TestDigests(t *testing.T) {
	f := files{}
	f.index(f.image(here, "one"))
	if image, err := Open(f, ""); err != nil {
		t.Fatal(err)
	} else if _, err := names(image); err != nil {
		t.Fatal(err) // the control
	}
	tried := 0
	for name, b := range f {
		if !strings.HasPrefix(name, "blobs/") {
			continue
		}
		for _, i := range []int{0, len(b) / 2, len(b) - 1} {
			changed := files{}
			for n, b := range f {
				changed[n] = b
			}
			changed[name] = slices.Clone(b)
			changed[name][i] ^= 1
			image, err := Open(changed, "")
			if err == nil {
				_, err = names(image)
			}
			if err == nil {
				t.Errorf("%s, byte %d: accepted", name, i)
			}
			changed[name] = append(slices.Clone(b), 0)
			if image, err = Open(changed, ""); err == nil {
				_, err = names(image)
			}
			if err == nil {
				t.Errorf("%s with a byte more: accepted", name)
			}
			tried++
		}
	}
	if tried != 3*5 {
		t.Errorf("%d changes tried", tried)
	}
}

func TestLayoutRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(f files)
		want   error
	}{
		"layout of the future": {func(f files) { f["oci-layout"] = []byte(`{"imageLayoutVersion":"2.0.0"}`) }, ErrFormat},
		"no JSON":              {func(f files) { f["index.json"] = []byte(`[`) }, ErrFormat},
		"large index":          {func(f files) { f["index.json"] = make([]byte, maxJSON+1) }, ErrFormat},
		"digest with a path":   {func(f files) { f.index(descriptor{MediaType: manifestType, Digest: "sha256:../../../etc/passwd"}) }, ErrFormat},
		"digest in capitals": {func(f files) {
			d := f.image(here, "x")
			d.Digest = "sha256:" + strings.ToUpper(d.Digest[7:])
			f.index(d)
		}, ErrFormat},
		"other algorithm": {func(f files) {
			f.index(descriptor{MediaType: manifestType, Digest: "sha512:" + strings.Repeat("0", 128)})
		}, ErrFormat},
		"negative size": {func(f files) { d := f.image(here, "x"); d.Size = -1; f.index(d) }, ErrFormat},
		"wrong size":    {func(f files) { d := f.image(here, "x"); d.Size++; f.index(d) }, ErrFormat},
		"other machine": {func(f files) { f.index(f.image(other, "x")) }, ErrPlatform},
		"indexes in one another": {func(f files) {
			d := f.image(here, "x")
			for range maxNested + 2 {
				d = f.json(indexType, manifest{SchemaVersion: 2, Manifests: []descriptor{d}})
			}
			f.index(d)
		}, ErrFormat},
		"many manifests": {func(f files) { f.index(slices.Repeat([]descriptor{f.image(here, "x")}, maxManifests+1)...) }, ErrFormat},
		"encrypted layer": {func(f files) {
			var m manifest
			d := f.image(here, "x")
			if err := readBlob(f, d, &m); err != nil {
				panic(err)
			}
			m.Layers[0].MediaType = layerType + "+gzip+encrypted"
			f.index(f.json(manifestType, m))
		}, ErrFormat},
		"fewer digests than layers": {func(f files) {
			var m manifest
			d := f.image(here, "x")
			if err := readBlob(f, d, &m); err != nil {
				panic(err)
			}
			m.Layers = append(m.Layers, m.Layers[0])
			f.index(f.json(manifestType, m))
		}, ErrFormat},
	} {
		f := files{}
		f.index(f.image(here, "x"))
		c.change(f)
		if _, err := Open(f, ""); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// save returns what docker save writes for a layout's image.
func save(tags ...string) files {
	f := files{}
	var list []saved
	for i, tag := range tags {
		layer := tarOf("tag", tag)
		dir := fmt.Sprintf("%064d", i)
		f[dir+"/layer.tar"] = layer
		conf := fmt.Appendf(nil, `{"os":"linux","architecture":%q,"rootfs":{"type":"layers","diff_ids":[%q]}}`, here, digestOf(layer))
		name := strings.TrimPrefix(digestOf(conf), "sha256:") + ".json"
		f[name] = conf
		list = append(list, saved{Config: name, RepoTags: []string{tag}, Layers: []string{dir + "/layer.tar"}})
	}
	b, err := json.Marshal(list)
	if err != nil {
		panic(err)
	}
	f["manifest.json"] = b
	return f
}

func TestSaved(t *testing.T) {
	bad := save("x:1")
	for name := range bad {
		if strings.HasSuffix(name, ".tar") {
			bad[name] = tarOf("tag", "another")
		}
	}
	unnamed := save("x:1")
	unnamed["manifest.json"] = []byte(`[{"Config":"../config.json","Layers":["a"]}]`)
	for _, c := range []struct {
		name  string
		from  files
		tag   string
		want  string
		error error
	}{
		{"one", save("x:1"), "", "tag=x:1", nil},
		{"by tag", save("x:1", "y:2"), "y:2", "tag=y:2", nil},
		{"several", save("x:1", "y:2"), "", "", ErrSeveral},
		{"no such tag", save("x:1"), "z", "", ErrPlatform},
		{"changed layer", bad, "", "", ErrDigest},
		{"configuration without a digest", unnamed, "", "", ErrFormat},
	} {
		if !IsImage(c.from) {
			t.Errorf("%s: no image", c.name)
		}
		image, err := Open(c.from, c.tag)
		if err == nil {
			var got string
			if got, err = names(image); got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		}
		if !errors.Is(err, c.error) {
			t.Errorf("%s: %v, want %v", c.name, err, c.error)
		}
	}
}
