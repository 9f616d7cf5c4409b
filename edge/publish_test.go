package edge

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

func TestPublishHostNames(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	wantURL(t, w.publishOne(a, web(1, "app")), "https://app.example.com")
	wantCode(t, w.publishOne(b, web(7, "app")), control.CodeNameTaken, "app.example.com", "laptop")

	full := web(2, "x")
	full.Host = "other.example.com"
	wantURL(t, w.publishOne(a, full), "https://other.example.com")
	full.Host = "app.example.org"
	wantCode(t, w.publishOne(a, full), control.CodeNameDenied, "app.example.org", "example.com")
	full.Host = "notexample.com"
	wantCode(t, w.publishOne(a, full), control.CodeNameDenied)
	bad := web(3, "app")
	bad.HostHeader = "no host"
	wantCode(t, w.publishOne(a, bad), control.CodeBadRequest)

	// The name stays with the agent that does not ask for it now.
	wantCode(t, w.publishOne(b, web(7, "app")), control.CodeNameTaken, "laptop")

	// Two tunnels of one set cannot have one name; the first one has it.
	got, _ := w.publish(a, web(1, "app"), web(2, "app"))
	wantURL(t, got[0], "https://app.example.com")
	wantCode(t, got[1], control.CodeNameTaken)
}

func TestPublishPorts(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	wantURL(t, w.publishOne(a, tcp(1, "ssh", 20001)), "tcp://example.com:20001")
	wantCode(t, w.publishOne(b, tcp(1, "ssh", 20001)), control.CodePortTaken, "laptop", "20000-20003")
	wantCode(t, w.publishOne(b, tcp(1, "ssh", 22)), control.CodePortRange, "20000-20003")
	w.busy[20002] = true
	wantCode(t, w.publishOne(b, tcp(1, "ssh", 20002)), control.CodePortTaken, "20000-20003", "in use")

	// Chosen by the edge: what is left are 20000 and 20003, and then nothing.
	got, _ := w.publish(b, tcp(1, "a", 0), tcp(2, "b", 0), tcp(3, "c", 0))
	urls := []string{got[0].PublicURL, got[1].PublicURL}
	slices.Sort(urls)
	if !slices.Equal(urls, []string{"tcp://example.com:20000", "tcp://example.com:20003"}) {
		t.Fatalf("got %v", urls)
	}
	wantCode(t, got[2], control.CodePortTaken, "20000-20003")

	// Another process of the agent, with other ids, has the same ports for the
	// same names, in whatever order it asks.
	again, _ := w.publish(b, tcp(11, "b", 0), tcp(12, "a", 0))
	if again[0].PublicURL != got[1].PublicURL || again[1].PublicURL != got[0].PublicURL {
		t.Fatalf("got %+v, want the ports of %+v", again, got)
	}
	w.ports = tunnel.PortRange{}
	wantCode(t, w.publishOne(b, tcp(1, "z", 0)), control.CodePortRange, "no public TCP ports")
}

// Two tunnels with the same name (tcp-22 for two machines) keep apart by their
// upstreams.
func TestPublishSameNameTwoUpstreams(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	one, two := tcp(1, "tcp-22", 0), tcp(2, "tcp-22", 0)
	two.Upstream = "tcp://192.168.1.9:22"
	got, _ := w.publish(a, one, two)
	if got[0].PublicURL == got[1].PublicURL || got[0].Error != nil || got[1].Error != nil {
		t.Fatalf("got %+v", got)
	}
	one.ID, two.ID = 11, 12
	again, _ := w.publish(a, two, one)
	if again[0].PublicURL != got[1].PublicURL || again[1].PublicURL != got[0].PublicURL {
		t.Fatalf("got %+v, want the ports of %+v", again, got)
	}
}

func TestPublishGeneratedNames(t *testing.T) {
	w := newWorld(t)
	a, b := w.agent("laptop"), w.agent("desktop")
	first := w.publishOne(a, web(1, ""))
	if first.Error != nil || first.Name == "" || first.PublicURL != "https://"+first.Name+".example.com" {
		t.Fatalf("got %+v", first)
	}
	// The same upstream gets its name back, in another process and after a while away.
	w.publish(a)
	if got := w.publishOne(a, web(77, "")); got.PublicURL != first.PublicURL {
		t.Fatalf("got %s, want %s back", got.PublicURL, first.PublicURL)
	}
	// Beside it, and for another upstream or agent, there is another name.
	got, _ := w.publish(a, web(77, ""), web(78, ""))
	if got[0].PublicURL != first.PublicURL || got[1].Error != nil || got[1].PublicURL == first.PublicURL {
		t.Fatalf("got %+v", got)
	}
	// The order of the set does not matter while ids stay.
	got, _ = w.publish(a, web(78, ""), web(77, ""))
	if got[1].PublicURL != first.PublicURL {
		t.Fatalf("got %+v", got)
	}
	if other := w.publishOne(b, web(1, "")); other.PublicURL == first.PublicURL {
		t.Fatal("another agent got the name")
	}
	// Asked for by its name, it is no longer a generated one.
	wantURL(t, w.publishOne(a, web(79, first.Name)), first.PublicURL)
	if w.snap().publics[store.HTTPSKey(first.Name+".example.com")].Value.Generated {
		t.Error("the name would expire, though the agent asked for it")
	}
}

func TestPublishIsDeclarative(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	if _, ops := w.publish(a, web(1, "app"), tcp(2, "ssh", 0)); ops == 0 {
		t.Fatal("nothing was stored")
	}
	before := w.snap().rev
	if _, ops := w.publish(a, web(1, "app"), tcp(2, "ssh", 0)); ops != 0 || w.snap().rev != before {
		t.Errorf("the same set again made %d operations", ops)
	}
	w.publish(a, web(1, "app"))
	active := map[string]bool{}
	for _, p := range w.snap().publics {
		active[p.Value.Name] = p.Value.Active
	}
	if !active["app"] || active["ssh"] || len(active) != 2 {
		t.Errorf("active: %v, want app active and ssh reserved", active)
	}
	table, err := buildTable(w.snap(), w.snap().settings.Value.Overlay, w.side)
	if err != nil {
		t.Fatal(err)
	}
	e, ok := table.ByHost("app.example.com")
	if !ok || table.Len() != 1 {
		t.Fatalf("the table has %d entries", table.Len())
	}
	if want := netip.AddrPortFrom(w.snap().settings.Value.Overlay.TunnelAddr(a, 1), 1); e.Addr != want || e.Agent != "laptop" || e.PublicURL != "https://app.example.com" {
		t.Errorf("entry %+v, want address %v", e, want)
	}
}

func TestPublishLimits(t *testing.T) {
	w := newWorld(t)
	a := w.agent("laptop")
	specs := make([]tunnel.Spec, maxPublished+1)
	for i := range specs {
		specs[i] = web(tunnel.ID(i+1), fmt.Sprintf("a%d", i))
	}
	_, err := publisher{side: w.side, now: w.now}.plan(w.snap(), a, specs)
	if control.CodeOf(err) != control.CodeBadRequest {
		t.Errorf("error %v, want a refusal", err)
	}
	// A whole set of other names fits into one commit, and in the end the
	// agent holds no more than it may.
	held := 0
	for round := range 4 {
		for i := range specs {
			specs[i].Name = fmt.Sprintf("r%d-%d", round, i)
		}
		got, _ := w.publish(a, specs[:maxPublished]...)
		for _, p := range got {
			if p.Error == nil {
				held++
			}
		}
	}
	if held != maxReserved || len(w.snap().publics) != maxReserved {
		t.Errorf("the agent got %d names, and holds %d; want %d", held, len(w.snap().publics), maxReserved)
	}
}

func TestPublishURLs(t *testing.T) {
	for _, c := range []struct {
		side publicSide
		want string
	}{
		{publicSide{"example.com", "https", 443}, "https://a.example.com"},
		{publicSide{"example.com", "https", 8443}, "https://a.example.com:8443"},
		{publicSide{"example.com", "http", 80}, "http://a.example.com"},
		{publicSide{"example.com", "http", 443}, "http://a.example.com:443"},
	} {
		if got := c.side.hostURL("a.example.com"); got != c.want {
			t.Errorf("%+v: %s, want %s", c.side, got, c.want)
		}
	}
}
