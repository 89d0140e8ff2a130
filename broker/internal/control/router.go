package control

import (
	"fmt"
	"log/slog"
	"net/http"

	"torno.internal/protocol/control"
)

// A Router is an http.ServeMux that knows its patterns, and answers what fits none of them with a *control.Error as all
// errors are.
type Router struct {
	*http.ServeMux
	Patterns []string // in the order in which they were added
}

// NewRouter returns a router without patterns.
func NewRouter(log *slog.Logger) *Router {
	r := &Router{ServeMux: http.NewServeMux()}
	r.ServeMux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		WriteError(w, log, &control.Error{Code: control.CodeNotFound, Message: fmt.Sprintf("there is no request %s %q", req.Method, req.URL.Path),
			Hint: "docs/control-api.md lists them; the broker may be older than who asks"})
	})
	return r
}

// Handle adds a pattern with its handler.
func (r *Router) Handle(pattern string, h http.Handler) {
	r.ServeMux.Handle(pattern, h)
	r.Patterns = append(r.Patterns, pattern)
}

// Status returns the HTTP status that errors with a code are answered with.
func Status(code string) int {
	if status, ok := statusOf[code]; ok {
		return status
	}
	return http.StatusInternalServerError
}
