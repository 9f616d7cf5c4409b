package configs

import (
	"net"
	"net/url"
	"strings"
)

// ngrok reads ngrok's agent configuration, versions 2 and 3
// (https://ngrok.com/docs/agent/config).
func (t table) ngrok() {
	for _, one := range []table{t, t.sub("agent")} {
		if one.keys == nil {
			continue
		}
		if one.take("authtoken") != "" {
			one.i.leave(one.at("authtoken"), "is ngrok's; get a token of your own edge with \"wgexpose edge invite\", and run \"wgexpose join\"")
		}
		switch addr := one.take("web_addr"); {
		case addr == "false":
			t.i.settings["inspect"] = "false"
		case addr != "" && parses(parseWebAddr, addr):
			t.i.settings["web_addr"] = addr
		case addr != "":
			one.i.leave(one.at("web_addr"), addr+" cannot be used here")
		}
		for theirs, ours := range map[string]string{"proxy_url": "proxy", "log_level": "log_level"} {
			value := one.take(theirs)
			check := parses(parseProxy, value)
			if ours == "log_level" {
				check = parses(parseLogLevel, value)
			}
			if value != "" && check {
				t.i.settings[ours] = value
			}
		}
		one.take("version")
		one.take("console_ui")
		one.take("update_check")
		one.take("update_channel")
	}
	t.each("tunnels", func(name string, one table) { one.ngrokTunnel(name) })
	t.each("endpoints", func(_ string, one table) { one.ngrokEndpoint() })
	t.rest(map[string]string{
		"region": "there is one edge, your own", "server_addr": "there is one edge, your own",
		"log": "logs go to standard error, where a service manager keeps them", "log_format": "see log_format of this program",
		"metadata": "edges keep no notes", "root_cas": "an edge is known by its key",
	})
}

func (t table) ngrokTunnel(name string) {
	v := map[string]string{}
	put(v, "kind", t.take("proto"))
	if v["kind"] == "https" {
		v["kind"] = "http"
	}
	if _, labelled := t.keys["labels"]; labelled && v["kind"] == "" {
		v["kind"] = "http"
	}
	addr := t.take("addr")
	put(v, "upstream", addr)
	for _, key := range []string{"domain", "hostname"} {
		name = t.ngrokHost(v, name, key, t.take(key))
	}
	if sub := t.take("subdomain"); sub != "" {
		name = sub // the name is the public one here
	}
	t.list("schemes") // https, and a redirect from http
	t.take("bind_tls")
	if t.take("inspect") == "false" {
		v["inspect"] = "false"
	}
	switch header := t.take("host_header"); header {
	case "", "preserve":
	case "rewrite":
		put(v, "host_header", hostOf(addr))
	default:
		v["host_header"] = header
	}
	putList(v, "basic_auth", append(t.list("basic_auth"), t.list("auth")...))
	if t.take("compression") == "true" {
		v["compression"] = "true"
	}
	for theirs, ours := range map[string]string{"request_header": "request_header_", "response_header": "response_header_"} {
		rules := t.sub(theirs)
		putList(v, ours+"add", headerLines(rules.list("add")))
		putList(v, ours+"remove", rules.list("remove"))
		rules.rest(nil)
	}
	networks := t.sub("ip_restriction")
	putList(v, "cidr_allow", networks.list("allow_cidrs"))
	putList(v, "cidr_deny", networks.list("deny_cidrs"))
	networks.rest(nil)
	put(v, "proxy_protocol", t.take("proxy_proto"))
	if verify := t.take("verify_upstream_tls"); verify != "" && strings.HasPrefix(addr, "https://") {
		v["upstream_tls_verify"] = verify
	}
	if remote := t.take("remote_addr"); remote != "" {
		_, port, err := net.SplitHostPort(remote)
		if err == nil {
			put(v, "port", port)
		}
	}
	if at := t.take("terminate_at"); at == "edge" {
		v["terminate_at"] = at
	}
	t.i.add(t.path, name, v)
	t.rest(ngrokMissing)
}

// ngrokHost takes a host name over, unless it is one of ngrok's own.
func (t table) ngrokHost(v map[string]string, name, key, host string) string {
	host = strings.TrimPrefix(strings.TrimPrefix(host, "https://"), "http://")
	if host == "" {
		return name
	}
	for _, theirs := range []string{".ngrok.io", ".ngrok.app", ".ngrok.dev", ".ngrok-free.app", ".ngrok-free.dev", ".ngrok.pizza"} {
		if first, found := strings.CutSuffix(host, theirs); found {
			name, _, _ = strings.Cut(first, ".")
			t.i.leave(t.at(key), host+" is ngrok's; here the tunnel's name, "+name+", comes before the edge's domain")
			return name
		}
	}
	scheme := "https://"
	if v["kind"] == "tls" {
		scheme = "tls://"
	}
	v["url"] = scheme + host
	return name
}

// ngrokEndpoint reads an endpoint of version 3.
func (t table) ngrokEndpoint() {
	v := map[string]string{"kind": "http"}
	name := t.take("name")
	upstream := t.sub("upstream")
	address := upstream.take("url")
	public := t.take("url")
	scheme, host, found := strings.Cut(public, "://")
	if !found {
		host = public
	}
	switch scheme {
	case "tcp", "tls":
		v["kind"] = scheme
	}
	if v["kind"] == "tls" { // what is inside is the upstream's
		address = strings.TrimPrefix(address, "tls://")
	}
	put(v, "upstream", address)
	if v["kind"] == "tcp" {
		if _, port, err := net.SplitHostPort(host); err == nil {
			put(v, "port", port)
		}
		put(v, "proxy_protocol", upstream.take("proxy_protocol"))
	} else {
		name = t.ngrokHost(v, name, "url", host)
	}
	if upstream.take("protocol") == "http2" {
		v["upstream_protocol"] = "http2"
	}
	upstream.rest(nil)
	t.i.add(t.path, name, v)
	t.rest(ngrokMissing)
}

// unprotected is said of what kept visitors out.
const unprotected = "it kept visitors out, and without it everybody gets in: see basic_auth and cidr_allow for what can be done"

var ngrokMissing = map[string]string{
	"oauth": unprotected, "oidc": unprotected,
	"traffic_policy": unprotected, "policy": unprotected,
	"crt": "the edge has certificates by itself; terminate_at says where TLS ends", "key": "the edge has certificates by itself; terminate_at says where TLS ends",
	"metadata": "edges keep no notes", "description": "edges keep no notes", "labels": "a tunnel is found by its host name",
	"user_agent_filter": unprotected, "circuit_breaker": "an upstream that is down is answered for at once",
	"verify_webhook": "the upstream checks signatures itself", "mutual_tls_cas": unprotected,
}

// headerLines writes "name: value" as ours, whatever blanks there were.
func headerLines(list []string) []string {
	for i, line := range list {
		name, value, _ := strings.Cut(line, ":")
		list[i] = strings.TrimSpace(name) + ": " + strings.TrimSpace(value)
	}
	return list
}

// hostOf is the host and port of an address as programs write it.
func hostOf(addr string) string {
	if u, err := url.Parse(addr); err == nil && u.Host != "" {
		return u.Host
	}
	if strings.Trim(addr, "0123456789") == "" && addr != "" {
		return "localhost:" + addr
	}
	return addr
}

func parses[T any](parse func(string) (T, error), s string) bool {
	_, err := parse(s)
	return err == nil
}
