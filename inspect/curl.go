package inspect

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// curl is a command for a POSIX shell that sends a request as the visitor
// did, to the public side. Headers that the way added, and those that curl
// makes itself, are left out.
func (i *Inspector) curl(x *exchange) string {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.kind == KindOpaque {
		return "# this was not understood as a request\n"
	}
	body := x.request.body.bytes()
	args := []string{"curl"}
	note, pipe := "", ""
	switch {
	case x.method == "HEAD":
		args = append(args, "--head")
	case x.method == "POST" && len(body) > 0, x.method == "GET" && len(body) == 0:
	default:
		args = append(args, "--request "+quote(x.method))
	}
	args = append(args, quote(x.url()))
	for _, f := range i.shown(x.request.fields) {
		switch name := strings.ToLower(f.Name); {
		case name == "accept-encoding":
			args = append(args, "--compressed")
		case name == "host" && strings.Contains(x.url(), "://"+f.Value+"/"), omitted(name), x.request.fields.has("Connection", name):
		case f.Value == "":
			args = append(args, "--header "+quote(f.Name+";")) // how curl is told of an empty one
		default:
			args = append(args, "--header "+quote(f.Name+": "+f.Value))
		}
		if strings.Contains(f.Value, Mask) {
			note = "# put the secrets where " + Mask + " stands\n"
		}
	}
	if x.request.cut {
		note += "# " + onlyBeginning(x.request.cutWhy()) + "\n"
	}
	switch {
	case len(body) == 0:
	case utf8.Valid(body) && !strings.Contains(string(body), "\x00"):
		args = append(args, "--data-raw "+quote(string(body)))
	default:
		pipe = "printf %s " + quote(base64.StdEncoding.EncodeToString(body)) + " | base64 -d | "
		args = append(args, "--data-binary @-")
	}
	return note + pipe + strings.Join(args, " \\\n  ") + "\n"
}

func omitted(name string) bool {
	switch name {
	case "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer", "expect", "keep-alive",
		"x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port", "x-real-ip", "forwarded":
		return true
	}
	return false
}

// quote makes one word of s, in which the shell changes nothing.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
