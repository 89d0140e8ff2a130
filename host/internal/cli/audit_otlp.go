package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"torno.internal/broker"
	"torno.internal/host/internal/config"
	"torno.internal/protocol/control"
)

// otlpBatch is how many log records one line holds.
const otlpBatch = 500

// What follows is the JSON of OTLP's ExportLogsServiceRequest (opentelemetry-proto, logs/v1), as far as it is used.

type otlpRequest struct {
	ResourceLogs []otlpResource `json:"resourceLogs"`
}

type otlpResource struct {
	Resource struct {
		Attributes []otlpAttribute `json:"attributes"`
	} `json:"resource"`
	ScopeLogs []otlpScope `json:"scopeLogs"`
}

type otlpScope struct {
	Scope struct {
		Name string `json:"name"`
	} `json:"scope"`
	LogRecords []otlpLog `json:"logRecords"`
}

type otlpLog struct {
	Time           string          `json:"timeUnixNano"` // 64-bit numbers are strings
	ObservedTime   string          `json:"observedTimeUnixNano"`
	SeverityNumber int             `json:"severityNumber"` // 9 info, 13 warn
	SeverityText   string          `json:"severityText"`
	EventName      string          `json:"eventName"`
	Body           otlpValue       `json:"body"`
	Attributes     []otlpAttribute `json:"attributes"`
}

type otlpAttribute struct {
	Key   string    `json:"key"`
	Value otlpValue `json:"value"`
}

type otlpValue struct {
	String *string    `json:"stringValue,omitempty"`
	Int    string     `json:"intValue,omitempty"`
	Bool   bool       `json:"boolValue,omitempty"`
	Array  *otlpArray `json:"arrayValue,omitempty"`
}

type otlpArray struct {
	Values []otlpValue `json:"values"`
}

func otlpText(s string) otlpValue { return otlpValue{String: &s} }

func exportOTLP(cmd *cobra.Command, dir string, wanted control.AuditFilter, w io.Writer) error {
	var batch []otlpLog
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		err := json.NewEncoder(w).Encode(otlpRequestOf(batch))
		batch = batch[:0]
		return err
	}
	err := broker.QueryAudit(cmd.Context(), dir, wanted, func(e *broker.AuditEntry) error {
		batch = append(batch, otlpLogOf(e))
		if len(batch) < otlpBatch {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

func otlpRequestOf(logs []otlpLog) otlpRequest {
	scope := otlpScope{LogRecords: logs}
	scope.Scope.Name = "torno.audit"
	resource := otlpResource{ScopeLogs: []otlpScope{scope}}
	resource.Resource.Attributes = []otlpAttribute{{"service.name", otlpText("torno")}}
	return otlpRequest{[]otlpResource{resource}}
}

// otlpLogOf makes one log record of an exchange or event. Names follow the semantic conventions for HTTP where there
// are such; all others begin with torno.
func otlpLogOf(e *broker.AuditEntry) otlpLog {
	r := &e.Record
	nanos := strconv.FormatInt(r.Time.UnixNano(), 10)
	l := otlpLog{Time: nanos, ObservedTime: nanos, SeverityNumber: 9, SeverityText: "INFO", EventName: "torno." + r.Type}
	a := attributes{{"torno.audit.record", otlpValue{Int: strconv.FormatUint(r.Seq, 10)}}}
	if r.Event != "" {
		l.EventName = "torno." + config.EscapeControl(r.Event)
	} else if r.Type == control.AuditBegin {
		l.EventName = "torno.exchange"
	}
	if r.Type == control.AuditRefused {
		l.SeverityNumber, l.SeverityText = 13, "WARN"
	}
	l.Body = otlpText(config.EscapeControl(fmt.Sprintf("%s %s", l.EventName, requestOf(r))))
	a.text("torno.session", r.Session)
	a.text("torno.agent", r.Agent)
	a.text("torno.by", r.By)
	a.text("http.request.method", r.Method)
	a.text("network.protocol.name", r.Protocol)
	a.text("url.scheme", r.Scheme)
	a.text("server.address", r.Authority)
	a.text("url.path", r.Path)
	a.text("torno.dialled", r.Dialled)
	a.list("torno.request.fields", r.Fields)
	a.text("torno.verdict", r.Verdict)
	a.text("torno.list", r.List)
	a.text("torno.rule", r.Rule)
	a.text("torno.approval", r.Approval)
	a.text("torno.secret", r.Secret)
	a.number("torno.secret.version", int64(r.Version))
	a.number("torno.placeholders", int64(r.Placeholders))
	a.text("torno.sha256", r.SHA256)
	a.number("torno.count", r.Count)
	reason := r.Reason
	if e.End != nil {
		reason += e.End.Reason
		a.end(e.End)
	}
	a.text("error.type", reason)
	l.Attributes = a
	return l
}

type attributes []otlpAttribute

func (a *attributes) text(key, value string) {
	if value != "" {
		*a = append(*a, otlpAttribute{key, otlpText(config.EscapeControl(value))})
	}
}

func (a *attributes) number(key string, n int64) {
	if n != 0 {
		*a = append(*a, otlpAttribute{key, otlpValue{Int: strconv.FormatInt(n, 10)}})
	}
}

func (a *attributes) flag(key string, set bool) {
	if set {
		*a = append(*a, otlpAttribute{key, otlpValue{Bool: true}})
	}
}

func (a *attributes) list(key string, values []string) {
	if len(values) == 0 {
		return
	}
	var all otlpArray
	for _, v := range values {
		all.Values = append(all.Values, otlpText(config.EscapeControl(v)))
	}
	*a = append(*a, otlpAttribute{key, otlpValue{Array: &all}})
}

// end appends how the exchange ended.
func (a *attributes) end(r *control.AuditRecord) {
	a.number("http.response.status_code", int64(r.Status))
	a.number("http.request.body.size", r.Up)
	a.number("http.response.body.size", r.Down)
	a.number("torno.dial_us", r.DialMicros)
	a.number("torno.head_us", r.HeadMicros)
	a.number("torno.us", r.Micros)
	a.text("network.peer.address", r.Upstream)
	a.text("torno.via", r.Via)
	a.number("torno.masked", int64(r.Masked))
	a.flag("torno.aborted", r.Aborted)
	a.flag("torno.interrupted", r.Interrupted)
}
