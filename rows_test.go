package torno_test

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// rows are what was asked for, row by row, and the tests that show each working: functions, or scripts of
// host/testdata/script. A row keeps its tests, under their names.
var rows = []struct{ row, what, tests string }{
	{"S1", "set secrets, several at once, in every form", "row_S1_set TestMissionS1SetSeveral TestMissionS1Prompt"},
	{"S2", "encrypted at rest, and not opened by who sealed", "TestMissionS2EncryptedAtRest"},
	{"S3", "presets by the secret's name", "TestMissionS3Presets TestMissionS3Redirects"},
	{"S4", "fields of one's own", "TestMissionS4CustomHeader"},
	{"S5", "names are listed, values never; delete", "row_S5_list_delete TestMissionS5ListAndDelete"},
	{"S6", "no way to read a value back", "TestMissionS6WriteOnly"},
	{"S7", "agents are apart", "TestMissionS7AgentsAreApart"},
	{"S8", "exposed secrets are variables, and said to be", "row_S8_exposed row_S8_overlap TestRowS8Overlap TestRowS8OverlapAtStart"},
	{"S9", "a declared secret that is missing stops the run", "row_S9_declared TestMissionS9MissingSecret"},
	{"S10", "no variable, or an inert placeholder", "TestMissionS10NoVariable"},
	{"S11", "no change to the code, no proxy setting", "TestMissionS11Requests"},
	{"S12", "SDKs work unchanged", "TestMissionS12PlaceholderForSDKs"},
	{"S13", "no credential in outputs, errors and logs", "TestMissionS13OutputsAndErrors"},
	{"S14", "rotation: pin, follow, revoke", "TestRowS14Rotation"},
	{"S15", "a session is revoked without a deployment", "TestMissionS15RevokeSession"},
	{"S16", "every request is in the audit", "TestMissionS16Audit"},
	{"S17", "SSH and PostgreSQL", "TestMissionS17SSH TestMissionS17PostgresPsql TestMissionS17PostgresPsycopg"},
	{"S18", "tokens, signatures, certificates", "TestRowS18Schemes TestOIDCClientCredentials TestAttack42BrokeredTokens TestSigned TestSignedMessage TestClientCertificate"},
	{"S19", "sessions are isolated by VMs", "TestVMMissionS19"},
}

// TestRowsKeepTheirTests finds every test of every row.
func TestRowsKeepTheirTests(t *testing.T) {
	out, err := exec.Command("grep", "-rhE", "--include=*_test.go", "^func Test", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(string(out), -1) {
		found[m[1]] = true
	}
	scripts, err := filepath.Glob("host/testdata/script/row_*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scripts {
		found[strings.TrimSuffix(filepath.Base(s), ".txtar")] = true
	}
	const want = 19
	named := 0
	for _, r := range rows {
		for _, name := range strings.Fields(r.tests) {
			if !found[name] {
				t.Errorf("row %s (%s) has lost its test %s", r.row, r.what, name)
			}
			if regexp.MustCompile(`(^row_|Mission|Row)` + r.row + `(\D|$)`).MatchString(name) {
				named++
				break
			}
		}
	}
	if len(rows) != want || named != want {
		t.Errorf("%d rows, of which %d have a test by their name; want %d", len(rows), named, want)
	}
}
