package broker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"torno.internal/broker/internal/audit"
	"torno.internal/broker/internal/policy"
	"torno.internal/broker/internal/upstream"
	"torno.internal/protocol/control"
)

// Reload reads the operator's file again, by Config.Reread. New sessions are held to what it says of agents and to its limits;
// live ones to that and to what they began with, so that a file only ever narrows them. How many requests wait for a person, and
// for how long, and how much sessions may record holds for all at once. What the file says of anything else takes a restart. A
// file that is wrong changes nothing. by says who wanted it, for the audit.
func (b *Broker) Reload(by string) (control.Reloaded, error) {
	b.reloading.Lock()
	defer b.reloading.Unlock()
	if b.cfg.Reread == nil {
		return control.Reloaded{}, &control.Error{Code: control.CodeConflict, Message: "this broker was given no file to read again"}
	}
	fresh, err := b.cfg.Reread()
	if err == nil {
		err = checkCeilings(fresh.Agents)
	}
	if err != nil {
		return control.Reloaded{}, &control.Error{Code: control.CodeInvalid, Message: "the operator's file: " + err.Error(), Hint: "nothing has changed; correct it and reload again"}
	}
	old := b.operator.Load()
	next := *old
	next.Agents, next.Limits = fresh.Agents, fresh.Limits
	b.operator.Store(&next)
	b.desk.Bound(askOptions(next.Limits))
	b.audit.Bound(next.Limits.AuditRecordsPerSecond, int64(next.Limits.AuditMiBPerHour)<<20)
	result := control.Reloaded{Changed: changes(old, &next), Restart: changes(&next, &fresh)}
	b.recordOwn(&audit.Record{Event: eventReloaded, By: by, SHA256: digest(fresh)})
	for _, s := range b.sessions("") {
		if !reflect.DeepEqual(old.Agents[s.agent], next.Agents[s.agent]) {
			b.narrow(s)
			result.Narrowed++
		}
	}
	b.log.Info("the operator's file was read again", "sessions", result.Narrowed, "changed", result.Changed, "restart", result.Restart)
	return result, nil
}

// reload is Reload for the control API.
func (b *Broker) reload(r *http.Request) (control.Reloaded, error) {
	return b.Reload(caller(r.Context()))
}

// checkCeilings reports all that is wrong with what a file says of agents.
func checkCeilings(agents map[string]control.Ceiling) error {
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(agents)) {
		c := agents[name]
		_, err := policy.Compile(control.AgentPolicy{Name: name}, &c, nil)
		_, wrong := boundsOf("broker.toml", "agents."+name+".limits", c.Limits)
		_, private := upstream.ParsePrefixes(c.AllowPrivate)
		errs = append(append(errs, err, private), wrong...)
	}
	return errors.Join(errs...)
}

// changes names the keys in which two files differ: those of a table one by one, and arrays as a whole.
func changes(old, fresh *control.Config) []string {
	return differing("", reflect.ValueOf(*old), reflect.ValueOf(*fresh))
}

func differing(path string, was, is reflect.Value) []string {
	var keys []string
	switch was.Kind() {
	case reflect.Struct:
		for i := range was.NumField() {
			keys = append(keys, differing(path+"."+jsonName(was.Type().Field(i)), was.Field(i), is.Field(i))...)
		}
	case reflect.Map: // of tables by their names
		names := map[string]bool{}
		for _, m := range []reflect.Value{was, is} {
			for _, k := range m.MapKeys() {
				names[k.String()] = true
			}
		}
		for _, name := range slices.Sorted(maps.Keys(names)) {
			a, b := was.MapIndex(reflect.ValueOf(name)), is.MapIndex(reflect.ValueOf(name))
			if !a.IsValid() || !b.IsValid() || !reflect.DeepEqual(a.Interface(), b.Interface()) {
				keys = append(keys, strings.TrimPrefix(path+"."+name, "."))
			}
		}
	default:
		if !reflect.DeepEqual(was.Interface(), is.Interface()) {
			keys = []string{strings.TrimPrefix(path, ".")}
		}
	}
	return keys
}

// digest is the SHA-256 of what an operator's file says.
func digest(c control.Config) string {
	b, err := json.Marshal(c)
	if err != nil {
		panic(err) // plain data
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Status says in a few words what the broker does, for people. It returns only if the broker is not stuck.
func (b *Broker) Status() string {
	b.mu.Lock()
	sessions := len(b.live)
	b.mu.Unlock()
	return fmt.Sprintf("%d sessions, %d requests wait for a person", sessions, len(b.desk.List()))
}

// jsonName is how a file calls a member.
func jsonName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}
