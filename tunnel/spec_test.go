package tunnel

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func httpSpec() Spec {
	return Spec{ID: 7, Name: "app", Kind: HTTP, Host: "app.example.com", Upstream: "http://127.0.0.1:8089", HostHeader: "localhost:3000"}
}

func tcpSpec() Spec {
	return Spec{ID: 8, Name: "ssh", Kind: TCP, Port: 20022, Upstream: "tcp://127.0.0.1:22"}
}

func tlsSpec() Spec {
	return Spec{ID: 9, Name: "db", Kind: TLS, Host: "db.example.com", Upstream: "tcp://127.0.0.1:5432"}
}

func TestSpecValidate(t *testing.T) {
	for what, c := range map[string]struct {
		base   func() Spec
		change func(*Spec)
		want   string // "" is allowed
	}{
		"http":                    {httpSpec, func(*Spec) {}, ""},
		"tcp":                     {tcpSpec, func(*Spec) {}, ""},
		"named by the edge":       {httpSpec, func(s *Spec) { s.Name, s.Host = "", "" }, ""},
		"port of the edge":        {tcpSpec, func(s *Spec) { s.Port = 0 }, ""},
		"socket":                  {tcpSpec, func(s *Spec) { s.Upstream = "unix:/run/a b.sock" }, ""},
		"long upstream":           {tcpSpec, func(s *Spec) { s.Upstream = strings.Repeat("x", 512) }, ""},
		"other script":            {tcpSpec, func(s *Spec) { s.Upstream = "unix:/run/дом.sock" }, ""},
		"IPv6 host header":        {httpSpec, func(s *Spec) { s.HostHeader = "[::1]:80" }, ""},
		"tls":                     {tlsSpec, func(*Spec) {}, ""},
		"tls, ended by the edge":  {tlsSpec, func(s *Spec) { s.TerminateAt = AtEdge }, ""},
		"tls, ended by the agent": {tlsSpec, func(s *Spec) { s.TerminateAt = AtAgent }, ""},
		"tls, ended elsewhere":    {tlsSpec, func(s *Spec) { s.TerminateAt = "moon" }, "asks for"},
		"http, ended by the agent": {httpSpec, func(s *Spec) {
			s.TerminateAt, s.Policy = AtAgent, &Policy{Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}
		}, ""},
		"password at the agent": {httpSpec, func(s *Spec) {
			s.TerminateAt, s.Policy = AtAgent, &Policy{BasicAuth: []Credential{{User: "me", Hash: "$2a$10$" + strings.Repeat("a", 53)}}}
		}, "for the edge to enforce"},
		"header rule at the agent": {httpSpec, func(s *Spec) {
			s.TerminateAt, s.Policy = AtAgent, &Policy{ResponseHeader: HeaderRules{Remove: []string{"Server"}}}
		}, "for the edge to enforce"},
		"tcp, ended by the agent": {tcpSpec, func(s *Spec) { s.TerminateAt = AtAgent }, "this one is tcp"},
		"port of tls":             {tlsSpec, func(s *Spec) { s.Port = 443 }, "tcp tunnel"},
		"header of tls":           {tlsSpec, func(s *Spec) { s.HostHeader = "a" }, "http tunnel"},
		"TLS end of http":         {httpSpec, func(s *Spec) { s.TerminateAt = AtEdge }, "this tunnel is http"},
		"no id":                   {httpSpec, func(s *Spec) { s.ID = 0 }, "no id"},
		"no kind":                 {httpSpec, func(s *Spec) { s.Kind = "" }, "no kind of tunnel"},
		"other kind":              {httpSpec, func(s *Spec) { s.Kind = Kind(strings.Repeat("u", 5000)) }, "no kind of tunnel"},
		"bad name":                {httpSpec, func(s *Spec) { s.Name = "My App" }, "the name"},
		"long name":               {httpSpec, func(s *Spec) { s.Name = strings.Repeat("a", 5000) }, "the name"},
		"no upstream":             {httpSpec, func(s *Spec) { s.Upstream = "" }, "upstream"},
		"too long upstream":       {httpSpec, func(s *Spec) { s.Upstream = strings.Repeat("x", 513) }, "upstream"},
		"escape in upstream":      {httpSpec, func(s *Spec) { s.Upstream = "x\x1b[2J" }, "upstream"},
		"right-to-left override":  {httpSpec, func(s *Spec) { s.Upstream = "x\u202ey" }, "upstream"},
		"line in upstream":        {httpSpec, func(s *Spec) { s.Upstream = "x\ny" }, "upstream"},
		"not UTF-8":               {httpSpec, func(s *Spec) { s.Upstream = "x\xff" }, "upstream"},
		"host of tcp":             {tcpSpec, func(s *Spec) { s.Host = "a.example.com" }, "http tunnel"},
		"header of tcp":           {tcpSpec, func(s *Spec) { s.HostHeader = "a" }, "http tunnel"},
		"HTTP/2 upstream":         {httpSpec, func(s *Spec) { s.UpstreamProtocol = HTTP2 }, ""},
		"HTTP/2 of tcp":           {tcpSpec, func(s *Spec) { s.UpstreamProtocol = HTTP2 }, "http tunnel"},
		"HTTP/3 upstream":         {httpSpec, func(s *Spec) { s.UpstreamProtocol = "http3" }, "no protocol for an upstream"},
		"compression of tcp":      {tcpSpec, func(s *Spec) { s.Compression = true }, "http tunnel"},
		"port of http":            {httpSpec, func(s *Spec) { s.Port = 80 }, "tcp tunnel"},
		"host in upper case":      {httpSpec, func(s *Spec) { s.Host = "App.example.com" }, `must be written as "app.example.com"`},
		"host with a dot":         {httpSpec, func(s *Spec) { s.Host = "app.example.com." }, "must be written as"},
		"host with a port":        {httpSpec, func(s *Spec) { s.Host = "app.example.com:1" }, "without a port"},
		"long host":               {httpSpec, func(s *Spec) { s.Host = strings.Repeat("a", 100000) }, "too long"},
		"header, new line":        {httpSpec, func(s *Spec) { s.HostHeader = "a\r\nX: y" }, "host header"},
		"header, space":           {httpSpec, func(s *Spec) { s.HostHeader = "a b" }, "host header"},
		"header, path":            {httpSpec, func(s *Spec) { s.HostHeader = "a/b" }, "host header"},
		"header, user":            {httpSpec, func(s *Spec) { s.HostHeader = "a@b" }, "host header"},
		"header, too long":        {httpSpec, func(s *Spec) { s.HostHeader = strings.Repeat("a", 260) }, "host header"},
		"header, other script":    {httpSpec, func(s *Spec) { s.HostHeader = "ä" }, "host header"},
	} {
		s := c.base()
		c.change(&s)
		err := s.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 400) {
			t.Errorf("%s: %v; want an error with %q", what, err, c.want)
		}
	}
}

// TestSpecBounds: whatever Validate lets through is small. A new string of the
// Spec that it does not bound fails here.
func TestSpecBounds(t *testing.T) {
	for _, base := range []Spec{httpSpec(), tcpSpec(), tlsSpec()} {
		for i := range reflect.TypeFor[Spec]().NumField() {
			s := base
			f := reflect.ValueOf(&s).Elem().Field(i)
			if f.Kind() != reflect.String {
				continue
			}
			for _, text := range []string{strings.Repeat("a", 600), "a\x07", "a\xff"} {
				f.SetString(text)
				if s.Validate() == nil {
					t.Errorf("%s of a %s tunnel takes %.20q (%d bytes)", reflect.TypeFor[Spec]().Field(i).Name, base.Kind, text, len(text))
				}
			}
		}
	}
}

func TestJSON(t *testing.T) {
	e := Entry{Spec: tcpSpec(), Node: 300, Agent: "laptop", Addr: netip.AddrPortFrom(testOverlay(t).TunnelAddr(300, 8), DialPort), PublicURL: "tcp://example.com:20022", State: Away}
	b, err := json.Marshal(e)
	const want = `{"id":8,"name":"ssh","kind":"tcp","port":20022,"upstream":"tcp://127.0.0.1:22","node":300,"agent":"laptop",` +
		`"addr":"[fd12:3456:789a:0:12c:1:0:8]:1","public_url":"tcp://example.com:20022","state":"away"}`
	if err != nil || string(b) != want {
		t.Errorf("%s, %v; want %s", b, err, want)
	}
	var got Entry
	if err := json.Unmarshal(b, &got); err != nil || got != e {
		t.Errorf("came back as %+v, %v", got, err)
	}
	b, err = json.Marshal(httpSpec())
	const wantHTTP = `{"id":7,"name":"app","kind":"http","host":"app.example.com","upstream":"http://127.0.0.1:8089","host_header":"localhost:3000"}`
	if err != nil || string(b) != wantHTTP {
		t.Errorf("%s, %v; want %s", b, err, wantHTTP)
	}
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte(`{"id":7,"name":"app","kind":"http","host":"app.example.com","upstream":"http://127.0.0.1:8089"}`))
	f.Add([]byte(`{"id":8,"kind":"tcp","port":22,"upstream":"tcp://127.0.0.1:22"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var s Spec
		if json.Unmarshal(b, &s) != nil || s.Validate() != nil {
			return
		}
		if s.ID == 0 || len(s.Name)+len(s.Host)+len(s.Upstream)+len(s.HostHeader) > 1500 {
			t.Fatalf("valid: %+v", s)
		}
		out, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var again Spec
		if err := json.Unmarshal(out, &again); err != nil || again != s {
			t.Fatalf("%+v came back as %+v, %v", s, again, err)
		}
	})
}
