package configs

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
)

// frp reads frpc's configuration (https://github.com/fatedier/frp, since 0.52).
func (t table) frp() {
	if server := t.take("serverAddr"); server != "" {
		t.i.leave(t.at("serverAddr"), server+" runs frps; run \"wgexpose edge\" on such a machine, and join it with an invite")
	}
	t.take("serverPort")
	if log := t.sub("log"); log.keys != nil {
		if level := log.take("level"); parses(parseLogLevel, level) {
			t.i.settings["log_level"] = level
		}
		log.rest(map[string]string{"to": "logs go to standard error, where a service manager keeps them"})
	}
	if transport := t.sub("transport"); transport.keys != nil {
		if proxy := transport.take("proxyURL"); proxy != "" && parses(parseProxy, proxy) {
			t.i.settings["proxy"] = proxy
		}
		transport.rest(map[string]string{
			"protocol": "packets go over UDP, or TLS where that is blocked", "tls": "all is encrypted by WireGuard",
			"tcpMux": "each visitor has a connection of its own", "poolCount": "connections are opened in one round trip",
		})
	}
	t.each("proxies", func(_ string, one table) { one.frpProxy() })
	t.rest(map[string]string{
		"auth": "an agent is known by its key", "user": "names belong to an agent's key", "visitors": "visitors need no program",
		"webServer": "see web_addr and \"wgexpose status\"", "loginFailExit": "an agent connects for ever", "includes": "give --config several times",
		"start": "name the tunnels: wgexpose up NAME",
	})
}

func (t table) frpProxy() {
	name, kind := t.take("name"), t.take("type")
	v := map[string]string{}
	if on := t.take("enabled"); on == "false" {
		t.i.leave(t.path, name+" is not enabled")
		return
	}
	switch kind {
	case "http", "tcp":
		v["kind"] = kind
	case "https": // by the name in the ClientHello, passed through
		v["kind"] = "tls"
	case "udp":
		t.i.leave(t.path, name+" is of type udp, and datagrams cannot be shared yet")
		return
	default:
		t.i.leave(t.path, fmt.Sprintf("%s is of type %q, and there is nothing like it here", name, kind))
		return
	}
	ip, port := t.take("localIP"), t.take("localPort")
	if port != "" {
		if ip == "" {
			ip = "127.0.0.1"
		}
		v["upstream"] = net.JoinHostPort(ip, port)
	}
	if plugin := t.sub("plugin"); plugin.keys != nil {
		plugin.frpPlugin(v)
	}
	switch remote := t.take("remotePort"); {
	case remote == "" || remote == "0":
	case v["kind"] == "tcp":
		v["port"] = remote
	default:
		t.i.leave(t.at("remotePort"), name+" is a web site, and has a host name in place of a port")
	}
	sub := t.take("subdomain")
	put(v, "host_header", t.take("hostHeaderRewrite"))
	if user := t.take("httpUser"); user != "" {
		v["basic_auth"] = user + ":" + t.take("httpPassword")
	}
	for theirs, ours := range map[string]string{"requestHeaders": "request_header_", "responseHeaders": "response_header_"} {
		rules := t.sub(theirs)
		set := rules.sub("set")
		var add, remove []string
		for _, header := range slices.Sorted(maps.Keys(set.keys)) {
			add = append(add, header+": "+set.take(header))
			remove = append(remove, header) // set takes the place of what was there
		}
		putList(v, ours+"add", add)
		putList(v, ours+"remove", remove)
		set.rest(nil)
		rules.rest(nil)
	}
	if transport := t.sub("transport"); transport.keys != nil {
		if version := transport.take("proxyProtocolVersion"); version != "" && v["kind"] != "http" {
			v["proxy_protocol"] = version
		} else if version != "" {
			t.i.leave(transport.at("proxyProtocolVersion"), "web upstreams find the visitor in X-Forwarded-For")
		}
		transport.take("useEncryption") // always
		if transport.take("useCompression") == "true" && v["kind"] == "http" {
			t.i.leave(transport.at("useCompression"), "packets are not compressed; compression: true compresses texts for visitors")
		}
		transport.rest(nil)
	}
	hosts := t.list("customDomains")
	for _, host := range hosts {
		one := maps.Clone(v)
		one["url"] = strings.Replace(v["kind"], "http", "https", 1) + "://" + host
		t.i.add(t.path, name, one)
	}
	if sub != "" || len(hosts) == 0 {
		t.i.add(t.path, cmp.Or(sub, name), v)
	}
	t.rest(map[string]string{
		"locations":   "a host name leads to one upstream; give each path's upstream a name of its own",
		"healthCheck": "an upstream that is down is answered for at once", "loadBalancer": "a tunnel has one upstream",
		"metadatas": "edges keep no notes", "annotations": "edges keep no notes",
	})
}

// frpPlugin reads what serves in place of a local port.
func (t table) frpPlugin(v map[string]string) {
	switch kind := t.take("type"); kind {
	case "static_file":
		put(v, "upstream", "file://"+t.take("localPath"))
		v["kind"] = "http" // a web site, on a port of its own or not
		if user := t.take("httpUser"); user != "" {
			v["basic_auth"] = user + ":" + t.take("httpPassword")
		}
	case "unix_domain_socket":
		put(v, "upstream", "unix:"+t.take("unixPath"))
	case "http2http", "https2http":
		put(v, "upstream", "http://"+t.take("localAddr"))
		v["kind"] = "http" // the edge ends TLS
		put(v, "host_header", t.take("hostHeaderRewrite"))
	case "http2https", "https2https":
		put(v, "upstream", "https://"+t.take("localAddr"))
		v["kind"], v["upstream_tls_verify"] = "http", "false" // as frp does
		put(v, "host_header", t.take("hostHeaderRewrite"))
	default:
		t.i.leave(t.path, "there is no plugin "+quote(kind)+" here")
	}
	t.rest(map[string]string{
		"crtPath": "the edge has certificates by itself", "keyPath": "the edge has certificates by itself",
		"stripPrefix": "the folder is the site, without a prefix",
	})
}
