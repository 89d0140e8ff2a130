package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// maxModule bounds one module, in bytes.
const maxModule = 64 << 20

// moduleName returns the name of the module in a file, and how the file is compressed. It is false for
// other files.
func moduleName(file string) (name, compression string, ok bool) {
	base := path.Base(file)
	name, compression, ok = strings.Cut(base, ".ko")
	return normal(name), compression, ok && (compression == "" || compression[0] == '.')
}

// readModule reads a module and what it needs.
func readModule(compression string, r io.Reader) (data []byte, needs []string, err error) {
	switch compression {
	case "":
	case ".xz":
		r, err = xz.NewReader(r)
	case ".zst":
		var d *zstd.Decoder
		if d, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1)); err == nil {
			defer d.Close()
			r = d
		}
	default:
		err = fmt.Errorf("unknown compression %q", compression)
	}
	if err != nil {
		return nil, nil, err
	}
	if data, err = io.ReadAll(io.LimitReader(r, maxModule+1)); err != nil {
		return nil, nil, err
	}
	if len(data) > maxModule {
		return nil, nil, fmt.Errorf("more than %d bytes", maxModule)
	}
	needs, err = dependencies(data)
	return withoutSignature(data), needs, err
}

// dependencies reads the section .modinfo: strings "key=value", each with its NUL.
func dependencies(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no section .modinfo")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	for line := range strings.SplitSeq(string(info), "\x00") {
		if list, ok := strings.CutPrefix(line, "depends="); ok && list != "" {
			names := strings.Split(list, ",")
			for i := range names {
				names[i] = normal(names[i])
			}
			return names, nil
		}
	}
	return nil, nil
}

const signatureMagic = "~Module signature appended~\n"

// signatureInfo is the size of what stands between a signature and signatureMagic; its last four bytes
// are the signature's length, big endian (the kernel's include/linux/module_signature.h).
const signatureInfo = 12

// withoutSignature removes a module's appended signature. What vouches for it is the package's hash; the
// guest's kernel would spend time on a check that proves less.
func withoutSignature(module []byte) []byte {
	body, ok := bytes.CutSuffix(module, []byte(signatureMagic))
	if !ok || len(body) < signatureInfo {
		return module
	}
	n := uint64(binary.BigEndian.Uint32(body[len(body)-4:])) + signatureInfo
	if n > uint64(len(body)) {
		return module
	}
	return body[:uint64(len(body))-n]
}
