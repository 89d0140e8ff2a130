package control

// A Cloud is a provider whose SDKs ask a metadata service beside their machine for credentials where nothing is
// configured. The zero value is none.
type Cloud string

// The clouds that torno answers for.
const (
	CloudAWS    Cloud = "aws"
	CloudGoogle Cloud = "google"
	CloudAzure  Cloud = "azure"
)

// Cloud returns the cloud whose SDKs the secret authorises; none for schemes that are no cloud's own.
func (in Injector) Cloud() Cloud { return schemes[in.Scheme].cloud }
