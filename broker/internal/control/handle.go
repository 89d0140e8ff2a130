package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"

	"torno.internal/protocol"
	"torno.internal/protocol/control"
)

// maxBody bounds the JSON of one request: sixteen secrets of full length fit.
const maxBody = 2 << 20 // bytes

// Handle returns a handler that reads one JSON body into Req, strictly, calls f and writes its answer.
// An error of f that is or wraps a *control.Error is answered with that; any other is logged and
// answered as internal.
func Handle[Req, Resp any](log *slog.Logger, f func(context.Context, Req) (Resp, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var req Req
		if err := ReadJSON(w, r, &req); err != nil {
			WriteError(w, log, err)
			return
		}
		resp, err := f(r.Context(), req)
		if err != nil {
			WriteError(w, log, err)
			return
		}
		WriteJSON(w, resp)
	})
}

// ReadJSON reads a request's body into v, strictly. Its error is a *control.Error.
func ReadJSON(w http.ResponseWriter, r *http.Request, v any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err == nil {
		err = protocol.DecodeStrictMax(body, v, maxBody)
	}
	if err != nil {
		return &control.Error{Code: control.CodeInvalid, Message: "reading the request: " + err.Error()}
	}
	return nil
}

// Get returns a handler for a request without a body.
func Get[Resp any](log *slog.Logger, f func(*http.Request) (Resp, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := f(r)
		if err != nil {
			WriteError(w, log, err)
			return
		}
		WriteJSON(w, resp)
	})
}

// WriteJSON answers with v.
func WriteJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // a peer that is gone needs no answer
}

var statusOf = map[string]int{
	control.CodeNotFound:      http.StatusNotFound,
	control.CodeConflict:      http.StatusConflict,
	control.CodeInvalid:       http.StatusBadRequest,
	control.CodeBusy:          http.StatusServiceUnavailable,
	control.CodeMissingSecret: http.StatusUnprocessableEntity,
	control.CodeUntrusted:     http.StatusForbidden,
	control.CodeTampered:      http.StatusConflict,
	control.CodeLocked:        http.StatusServiceUnavailable,
	control.CodeDamaged:       http.StatusInternalServerError,
}

// WriteError answers with err.
func WriteError(w http.ResponseWriter, log *slog.Logger, err error) {
	var ce *control.Error
	if !errors.As(err, &ce) {
		log.Error("control request failed", "err", err)
		ce = &control.Error{Code: control.CodeInternal, Message: err.Error(), Hint: "the broker's log says more"}
	}
	status, ok := statusOf[ce.Code]
	if !ok {
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(ce)
}
