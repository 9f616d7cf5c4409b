package configs

import (
	"fmt"
	"net/url"
	"strings"
)

// cloudflared reads the configuration of a locally managed tunnel
// (https://developers.cloudflare.com/tunnel/).
func (t table) cloudflared() {
	for _, key := range []string{"credentials-file", "token", "tunnel"} {
		if t.take(key) != "" && key != "tunnel" {
			t.i.leave(t.at(key), "is Cloudflare's; get a token of your own edge with \"wgexpose edge invite\", and run \"wgexpose join\"")
		}
	}
	if level := t.take("loglevel"); parses(parseLogLevel, level) {
		t.i.settings["log_level"] = level
	}
	if protocol := t.take("protocol"); protocol == "http2" {
		t.i.settings["transport"] = "tls" // UDP is blocked there, it seems
	}
	t.take("no-autoupdate")
	common := t.sub("originRequest")
	if service := t.take("url"); service != "" {
		t.cloudflaredRule(t.path, t.take("hostname"), service, common, table{i: t.i})
	}
	t.each("ingress", func(_ string, one table) {
		host, service := one.take("hostname"), one.take("service")
		if path := one.take("path"); path != "" && path != "/" {
			one.i.leave(one.at("path"), fmt.Sprintf("%s with the path %s: a host name leads to one upstream; give each path's upstream a name of its own", host, path))
			return
		}
		own := one.sub("originRequest")
		one.cloudflaredRule(one.path, host, service, common, own)
		one.rest(nil)
	})
	for _, key := range []string{"noTLSVerify", "httpHostHeader", "http2Origin"} {
		delete(common.keys, key) // each rule has looked at them
	}
	common.rest(originMissing)
	t.rest(map[string]string{
		"warp-routing": "agents open no networks", "metrics": "see \"wgexpose status --json\"", "logfile": "logs go to standard error, where a service manager keeps them",
	})
}

func (t table) cloudflaredRule(path, host, service string, common, own table) {
	v := map[string]string{"kind": "http", "upstream": service}
	name, _, _ := strings.Cut(host, ".")
	if code, found := strings.CutPrefix(service, "http_status:"); found {
		if code != "404" || host != "" {
			t.i.leave(path, host+" "+service+": the edge answers 404 for names that nobody has")
		}
		return
	}
	u, err := url.Parse(service)
	if err != nil {
		t.i.leave(path, service+" is no service")
		return
	}
	switch u.Scheme {
	case "http", "https", "unix":
	case "unix+tls":
		t.i.leave(path, service+": TLS on a Unix socket cannot be dialled")
		return
	case "tcp", "ssh", "rdp", "smb":
		port := map[string]string{"ssh": "22", "rdp": "3389", "smb": "445"}[u.Scheme]
		if u.Port() != "" {
			port = u.Port()
		}
		v["kind"], v["upstream"] = "tcp", u.Hostname()+":"+port
		if host != "" {
			t.i.leave(path, host+": a TCP service has a public port in place of a host name; \"wgexpose status\" tells which, and visitors need no program")
		}
		t.i.add(path, name, v)
		return
	default:
		if service == "hello_world" || service == "hello-world" {
			t.i.leave(path, "see \"wgexpose http --app echo\"")
			return
		}
		t.i.leave(path, quote(service)+": there is nothing like it here")
		return
	}
	switch {
	case host == "":
	case strings.Contains(host, "*"):
		t.i.leave(path, host+": a tunnel has one host name")
		return
	default:
		v["url"] = "https://" + host
	}
	setting := func(key string) string {
		if s := own.take(key); s != "" {
			return s
		}
		s, _ := common.keys[key].(string)
		if b, ok := common.keys[key].(bool); ok {
			s = fmt.Sprint(b)
		}
		return s
	}
	if setting("noTLSVerify") == "true" && u.Scheme == "https" {
		v["upstream_tls_verify"] = "false"
	}
	put(v, "host_header", setting("httpHostHeader"))
	if setting("http2Origin") == "true" {
		v["upstream_protocol"] = "http2"
	}
	own.rest(originMissing)
	t.i.add(path, name, v)
}

var originMissing = map[string]string{
	"originServerName": "the certificate must be for the upstream's own name", "caPool": "the system's roots are used",
	"access": "visitors are asked for passwords (basic_auth) or let in by network", "connectTimeout": "an upstream has 10 s to take a connection",
}
