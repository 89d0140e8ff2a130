package pluginhost

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"

	goplugin "github.com/hashicorp/go-plugin"

	"torno.internal/broker/plugin"
)

// maxHandshake bounds the line by which a plugin says where it listens, in bytes: most of it is a certificate.
const maxHandshake = 4 << 10

// A handshake is that line: 1|VERSION|unix|PATH|grpc|CERTIFICATE.
type handshake struct {
	version int
	path    string
}

// What is wrong with a handshake.
var (
	errNotAPlugin = errors.New("not a handshake")
	errVersion    = errors.New("another version")
)

// parseHandshake reads the line, without its newline. Version is set, where it can be read, with errVersion too.
func parseHandshake(line []byte) (h handshake, err error) {
	parts := strings.Split(string(line), "|")
	if len(line) > maxHandshake || len(parts) < 6 || parts[0] != strconv.Itoa(goplugin.CoreProtocolVersion) {
		return h, errNotAPlugin
	}
	h.version, err = strconv.Atoi(parts[1])
	if err != nil || h.version < 0 {
		return handshake{}, errNotAPlugin
	}
	if h.version != plugin.ProtocolVersion {
		return h, errVersion
	}
	if parts[2] != "unix" || parts[4] != string(goplugin.ProtocolGRPC) || len(parts[5]) < 50 {
		return handshake{}, errNotAPlugin
	}
	h.path = parts[3]
	return h, nil
}

// socketName returns the name of the socket that the plugin listens at, which has to lie in dir itself.
func (h handshake) socketName(dir string) (string, error) {
	name, ok := strings.CutPrefix(h.path, dir+"/")
	if !ok || name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return "", errNotAPlugin
	}
	return name, nil
}

// readHandshake reads the first line of what a plugin writes.
func readHandshake(r io.Reader) ([]byte, error) {
	line := make([]byte, 0, maxHandshake+1)
	for len(line) < cap(line) {
		n, err := r.Read(line[len(line):cap(line)])
		line = line[:len(line)+n]
		if i := bytes.IndexByte(line, '\n'); i >= 0 {
			return line[:i], nil
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, errNotAPlugin
}
