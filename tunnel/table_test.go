package tunnel

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

func httpEntry(node NodeID, id ID, host string) Entry {
	return Entry{Spec: Spec{ID: id, Kind: HTTP, Host: host, Upstream: "http://127.0.0.1:80"}, Node: node}
}

func tcpEntry(node NodeID, id ID, port uint16) Entry {
	return Entry{Spec: Spec{ID: id, Kind: TCP, Port: port, Upstream: "tcp://127.0.0.1:22"}, Node: node}
}

func mustTable(t testing.TB, entries ...Entry) *Table {
	t.Helper()
	table, err := NewTable(entries)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTable(t *testing.T) {
	entries := []Entry{
		httpEntry(300, 1, "app.example.com"), tcpEntry(300, 2, 20022), httpEntry(301, 1, "xn--mnchen-3ya.example.com"), tcpEntry(301, 2, 65535),
	}
	table := mustTable(t, entries...)
	for host, node := range map[string]NodeID{
		"app.example.com": 300, "APP.example.COM": 300, "app.example.com.": 300, "münchen.example.com": 301, "XN--mnchen-3ya.example.com": 301,
		"": 0, "example.com": 0, "x.app.example.com": 0, "app.example.com:443": 0, "192.0.2.1": 0, "a b": 0,
	} {
		e, ok := table.ByHost(host)
		if ok != (node != 0) || ok && e.Node != node {
			t.Errorf("%q: %+v, %v", host, e, ok)
		}
	}
	for port, node := range map[uint16]NodeID{20022: 300, 65535: 301, 0: 0, 22: 0} {
		e, ok := table.ByPort(port)
		if ok != (node != 0) || ok && e.Node != node {
			t.Errorf("port %d: %+v, %v", port, e, ok)
		}
	}
	var all []Entry
	for e := range table.All() {
		all = append(all, *e)
	}
	if !slices.Equal(all, entries) || table.Len() != 4 {
		t.Errorf("All gave %+v", all)
	}
	for range table.All() {
		break // must be possible
	}
}

// TestTableIsACopy: a caller who goes on with his slice changes nothing.
func TestTableIsACopy(t *testing.T) {
	entries := []Entry{httpEntry(300, 1, "app.example.com")}
	table := mustTable(t, entries...)
	entries[0].Node = 999
	if e, ok := table.ByHost("app.example.com"); !ok || e.Node != 300 {
		t.Errorf("the table changed: %+v", e)
	}
}

func TestNoTable(t *testing.T) {
	var none *Table
	for _, table := range []*Table{none, {}, mustTable(t)} {
		if _, ok := table.ByHost("app.example.com"); ok {
			t.Error("an empty table has a host")
		}
		if _, ok := table.ByPort(22); ok || table.Len() != 0 {
			t.Error("an empty table has a port")
		}
		for range table.All() {
			t.Error("an empty table has an entry")
		}
	}
}

func TestNewTableRefuses(t *testing.T) {
	for what, c := range map[string]struct {
		entries []Entry
		want    string
	}{
		"host twice":            {[]Entry{httpEntry(300, 1, "a.example"), httpEntry(301, 1, "a.example")}, "host a.example has two tunnels, of nodes 300 and 301"},
		"port twice":            {[]Entry{tcpEntry(300, 1, 22), tcpEntry(301, 1, 22)}, "port 22 has two tunnels, of nodes 300 and 301"},
		"id twice at a node":    {[]Entry{tcpEntry(300, 1, 22), httpEntry(300, 1, "a.example")}, "tunnel 1 of node 300 appears twice"},
		"host in upper case":    {[]Entry{httpEntry(300, 1, "A.example")}, "not canonical"},
		"host with a dot":       {[]Entry{httpEntry(300, 1, "a.example.")}, "not canonical"},
		"no host":               {[]Entry{httpEntry(300, 1, "")}, "empty"},
		"no port":               {[]Entry{tcpEntry(300, 1, 0)}, "has no port"},
		"neither kind of entry": {[]Entry{{Spec: Spec{ID: 1, Kind: "udp"}, Node: 300}}, "no kind of tunnel"},
	} {
		table, err := NewTable(c.entries)
		if err == nil || !strings.Contains(err.Error(), c.want) || table != nil {
			t.Errorf("%s: %v, %v; want an error with %q", what, table, err, c.want)
		}
	}
	// Ids are a node's own.
	mustTable(t, tcpEntry(300, 1, 22), tcpEntry(301, 1, 23))
}

func TestByHostCostsNothing(t *testing.T) {
	table := mustTable(t, httpEntry(300, 1, "app.example.com"))
	for _, host := range []string{"app.example.com", "app.example.com."} {
		if n := testing.AllocsPerRun(100, func() {
			if _, ok := table.ByHost(host); !ok {
				t.Fatal("not found")
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", host, n)
		}
	}
}

func BenchmarkByHost(b *testing.B) {
	var entries []Entry
	for i := range 10000 {
		entries = append(entries, httpEntry(300, ID(i+1), fmt.Sprintf("app-%d.example.com", i)))
	}
	table := mustTable(b, entries...)
	for name, host := range map[string]string{"canonical": "app-77.example.com", "upper": "APP-77.example.com", "unknown": "x.example.com"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.ByHost(host)
			}
		})
	}
}
