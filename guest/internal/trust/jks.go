package trust

import (
	"crypto/sha1" //nolint:gosec // the format's own check of integrity; nothing rests on it
	"encoding/binary"
	"encoding/pem"
	"strconv"
	"time"
)

// javaStores are key stores that Java reads its roots from where a distribution keeps them together.
var javaStores = []string{
	"/etc/ssl/certs/java/cacerts",                     // Debian, Ubuntu
	"/etc/pki/ca-trust/extracted/java/cacerts",        // Fedora, RHEL
	"/var/lib/ca-certificates/java-cacerts",           // openSUSE
	"/etc/ca-certificates/extracted/java-cacerts.jks", // Arch
}

// javaFile is the same for Java that brings a store of its own: -Djavax.net.ssl.trustStore names it.
const javaFile = bundleDir + "/cacerts.jks"

// javaPassword is what everybody's store of public roots is locked with; it only guards against accidents.
const javaPassword = "changeit"

// keyStore returns the certificates in a PEM bundle as a Java key store (JKS, version 2), which every Java reads:
//
//	magic(4) version(4) count(4) { 2(4) alias time(8) "X.509" length(4) certificate }… SHA-1(20)
//
// Text is a 16-bit length and UTF-8. The checksum is over the password in UTF-16, a phrase, and all before it.
func keyStore(bundle []byte, now time.Time) []byte {
	const (
		magic   = 0xfeedfeed
		version = 2
		trusted = 2
	)
	text := func(b []byte, s string) []byte {
		return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
	}
	b := make([]byte, 0, len(bundle)) // base64 is larger than what is added to each certificate
	b = binary.BigEndian.AppendUint32(b, magic)
	b = binary.BigEndian.AppendUint32(b, version)
	countAt := len(b)
	count := uint32(0)
	b = binary.BigEndian.AppendUint32(b, count)
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			continue
		}
		count++
		b = binary.BigEndian.AppendUint32(b, trusted)
		b = text(b, "torno-"+strconv.FormatUint(uint64(count), 10))
		b = binary.BigEndian.AppendUint64(b, uint64(now.UnixMilli()))
		b = text(b, "X.509")
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(block.Bytes))), block.Bytes...)
	}
	binary.BigEndian.PutUint32(b[countAt:], count)
	h := sha1.New() //nolint:gosec // as above
	for _, c := range []byte(javaPassword) {
		h.Write([]byte{0, c})
	}
	h.Write([]byte("Mighty Aphrodite"))
	h.Write(b)
	return h.Sum(b)
}
