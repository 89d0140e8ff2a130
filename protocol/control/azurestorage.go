package control

import (
	"errors"
	"fmt"
	"strings"

	"torno.internal/protocol"
)

// ParamAccount is the parameter of SchemeAzureStorage that names the storage account. ParamService is what of it requests are
// for, where the host does not say so.
const ParamAccount = "account"

// The services of a storage account.
const (
	ServiceBlob  = "blob" // Data Lake, too
	ServiceQueue = "queue"
	ServiceFile  = "file"
	ServiceTable = "table"
)

const maxAccount = 64 // bytes

// checkAccount accepts a storage account's name.
func checkAccount(_, value string) error {
	if len(value) > maxAccount || strings.Trim(value, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("%q is not a storage account's name: lower-case letters and digits", value)
	}
	return nil
}

// ParseAccountKey returns the key of a storage account that is written in base64, in fresh memory.
func ParseAccountKey(value []byte) ([]byte, error) {
	key, err := DecodeKey(value, CodingBase64)
	if err != nil || len(key) == 0 {
		return nil, errors.New("the value is not a storage account's key, which is base64")
	}
	return key, nil
}

func checkAccountKey(_ Injector, value []byte) error {
	key, err := ParseAccountKey(value)
	clear(key)
	return err
}

// StorageService returns which service of a storage account requests to host are for: that which the parameter names, or the second
// label of an Azure host.
func (in Injector) StorageService(host string) string {
	if s := in.Param(ParamService); s != "" {
		return s
	}
	a, err := protocol.ParseAuthority(host, protocol.DefaultPort("https"))
	if err != nil {
		return ServiceBlob
	}
	if labels := strings.Split(a.Host, "."); len(labels) > 2 && labels[1] == ServiceTable {
		return ServiceTable
	}
	return ServiceBlob
}
