package oci

import (
	"bytes"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"torno.internal/images/tree"
)

func mkfifo(path string) error { return unix.Mkfifo(path, 0o600) }

// Whatever an index, a manifest and a configuration say, what is accepted has its layers where their digests lead.
func FuzzLayout(f *testing.F) {
	seed := files{}
	seed.index(seed.image(here, "one"))
	f.Add(seed["index.json"], []byte(`{"schemaVersion":2,"config":{"digest":"","size":2},"layers":[]}`), []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}`))
	f.Fuzz(func(t *testing.T, index, manifest, conf []byte) {
		s := files{"index.json": index, "oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)}
		s.blob("", manifest)
		s.blob("", conf)
		image, err := Open(s, "")
		if err != nil {
			return
		}
		if len(image.Layers) == 0 || len(image.Layers) > maxLayers || !validDigest.MatchString(image.Digest) {
			t.Errorf("%d layers, digest %q", len(image.Layers), image.Digest)
		}
	})
}

// A manifest of docker save leads to files of the archive alone, whatever it says.
func FuzzSaved(f *testing.F) {
	f.Add(save("x:1")["manifest.json"], []byte(`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["x"]}}`))
	f.Fuzz(func(t *testing.T, manifest, conf []byte) {
		s := files{"manifest.json": manifest}
		s[digestOf(conf)[len("sha256:"):]+".json"] = conf
		image, err := Open(s, "")
		if err == nil && !validDigest.MatchString(image.Digest) {
			t.Errorf("digest %q", image.Digest)
		}
	})
}

// Archives and layers are hostile to the byte: reading them ends, with an error or with what their digest says.
func FuzzLayer(f *testing.F) {
	f.Add(tarOf("a", "1"))
	f.Add(gzipped(tarOf("a", "1", ".wh.b", "")))
	f.Add(zstded(tarOf("a/../b", "1")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := OpenArchive(bytes.NewReader(b), int64(len(b))); err == nil {
			for name, m := range a.members {
				if m.target == "" && m.size >= 0 && (m.offset < 0 || m.offset+m.size > int64(len(b))) {
					t.Fatalf("%q is outside of the archive", name)
				}
			}
		}
		l := layer{source: files{"l": b}, name: "l", size: -1, diffID: "sha256:"}
		merged, err := tree.Merge(l.open)
		if err == nil {
			t.Fatalf("a layer without its digest was accepted: %v", merged.WriteTar(io.Discard))
		}
	})
}
