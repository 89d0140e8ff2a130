package workspace

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// The page for people lists every row, with its reason. TORNO_UPDATE=1 rewrites its tables.
func TestDocs(t *testing.T) {
	const page = "../../../docs/workspace.md"
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, table := range []struct {
		heading string
		rows    []Row
	}{{"| file | because |\n", HostCode}, {"| file in a git directory | because |\n", append([]Row{gitHead}, gitCode...)}} {
		want := table.heading + "|---|---|\n"
		for _, r := range table.rows {
			want += fmt.Sprintf("| `%s` | %s |\n", r.Pattern, r.Why)
		}
		if strings.Contains(text, want) {
			continue
		}
		if os.Getenv("TORNO_UPDATE") == "" {
			t.Errorf("the table %q is not the code's (TORNO_UPDATE=1 go test ./host/internal/workspace rewrites it)", strings.TrimSpace(table.heading))
			continue
		}
		before, after, ok := strings.Cut(text, table.heading)
		if !ok {
			t.Fatalf("no table %q", table.heading)
		}
		_, after, _ = strings.Cut(after, "\n\n")
		text = before + want + "\n" + after
	}
	if text != string(b) {
		if err := os.WriteFile(page, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
