// Package zone is a DNS server for tests: 127.0.0.1 for every name, and TXT records
// of one zone that are set by signed updates (RFC 2136), as an edge with DNS-01
// does, or by the test.
//
//	z := zone.New(t, "example.test.")
//	// with provider rfc2136, server z.Updates, zone.KeyName, zone.Key, resolver z.Addr
package zone

import (
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// The key that updates of a zone are signed with (RFC 8945).
const (
	KeyName = "edge-key."
	Key     = "c2VjcmV0IG9mIHRoZSB6b25l" // base64
)

// Zone is a server that runs until the test ends.
type Zone struct {
	Addr    string // HOST:PORT of UDP, for questions
	Updates string // HOST:PORT of TCP, for updates

	name string // "example.test."; "" for a server without a zone

	mu      sync.Mutex          // guards all below
	txt     map[string][]string // by name
	updates int                 // that were accepted
}

// New starts a server for the zone; name is "example.test.", or "" for none.
func New(t testing.TB, name string) *Zone {
	t.Helper()
	z := &Zone{name: name, txt: make(map[string][]string)}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.Addr = udp.LocalAddr().String()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.Updates = tcp.Addr().String()
	var wg sync.WaitGroup
	for _, s := range []*dns.Server{{PacketConn: udp}, {Listener: tcp}} {
		s.Handler, s.TsigSecret = z, map[string]string{KeyName: Key}
		s.MsgAcceptFunc = func(dns.Header) dns.MsgAcceptAction { return dns.MsgAccept } // updates too
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		wg.Go(func() { _ = s.ActivateAndServe() }) // ends by Shutdown
		<-started
		t.Cleanup(func() { s.Shutdown() })
	}
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { udp.Close(); tcp.Close() })
	return z
}

// Changes is how many updates were accepted, and how many TXT records there are.
func (z *Zone) Changes() (updates, records int) {
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, values := range z.txt {
		records += len(values)
	}
	return z.updates, records
}

// ServeDNS implements dns.Handler.
func (z *Zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r := new(dns.Msg)
	r.SetReply(q)
	r.Authoritative, r.RecursionAvailable = true, true
	if q.Opcode == dns.OpcodeUpdate {
		z.update(w, q, r)
	} else if len(q.Question) == 1 {
		z.answer(q.Question[0], r)
	}
	if sig := q.IsTsig(); sig != nil {
		r.SetTsig(sig.Hdr.Name, sig.Algorithm, 300, int64(sig.TimeSigned))
	}
	_ = w.WriteMsg(r) // the client asks again
}

func (z *Zone) update(w dns.ResponseWriter, q, r *dns.Msg) {
	if q.IsTsig() == nil || w.TsigStatus() != nil || len(q.Question) != 1 || q.Question[0].Name != z.name {
		r.Rcode = dns.RcodeRefused
		return
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.updates++
	for _, rr := range q.Ns {
		txt, ok := rr.(*dns.TXT)
		if !ok {
			continue
		}
		name, value := strings.ToLower(txt.Hdr.Name), strings.Join(txt.Txt, "")
		if txt.Hdr.Class != dns.ClassNONE { // NONE removes, RFC 2136 section 2.5.4
			z.txt[name] = append(z.txt[name], value)
			continue
		}
		z.removeLocked(name, value)
	}
}

// Add sets a TXT record, beside others of that name, which is "a.example.test".
func (z *Zone) Add(name, value string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name = dns.CanonicalName(name)
	z.txt[name] = append(z.txt[name], value)
}

// Remove takes one out again.
func (z *Zone) Remove(name, value string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.removeLocked(dns.CanonicalName(name), value)
}

func (z *Zone) removeLocked(name, value string) {
	z.txt[name] = slices.DeleteFunc(z.txt[name], func(v string) bool { return v == value })
}

func (z *Zone) answer(q dns.Question, r *dns.Msg) {
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 1}
	switch name := strings.ToLower(q.Name); q.Qtype {
	case dns.TypeA:
		r.Answer = append(r.Answer, &dns.A{Hdr: header, A: net.IPv4(127, 0, 0, 1)})
	case dns.TypeSOA:
		if name == z.name {
			r.Answer = append(r.Answer, &dns.SOA{Hdr: header, Ns: "ns." + z.name, Mbox: "admin." + z.name, Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: 1})
		}
	case dns.TypeTXT:
		z.mu.Lock()
		defer z.mu.Unlock()
		for _, v := range z.txt[name] {
			r.Answer = append(r.Answer, &dns.TXT{Hdr: header, Txt: []string{v}})
		}
	}
}
