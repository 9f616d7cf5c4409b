package certs

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/miekg/dns"
)

// The key that updates of a zone are signed with (RFC 8945).
const (
	zoneKeyName = "edge-key."
	zoneKey     = "c2VjcmV0IG9mIHRoZSB6b25l" // base64
)

// zone is a DNS server on UDP and TCP: 127.0.0.1 for every name, and TXT records
// that are set by signed updates (RFC 2136).
type zone struct {
	name string // "example.test."; "" for a server without a zone
	addr string // UDP
	sets string // TCP, for updates

	mu      sync.Mutex          // guards all below
	txt     map[string][]string // by name
	most    int                 // TXT records that there were at one time
	updates int                 // that were accepted
}

func newZone(t *testing.T, name string) *zone {
	t.Helper()
	z := &zone{name: name, txt: make(map[string][]string)}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.addr = udp.LocalAddr().String()
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	z.sets = tcp.Addr().String()
	var wg sync.WaitGroup
	for _, s := range []*dns.Server{{PacketConn: udp}, {Listener: tcp}} {
		s.Handler, s.TsigSecret = z, map[string]string{zoneKeyName: zoneKey}
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

// dns is how a Manager sets records of the zone.
func (z *zone) dns() *DNS {
	return &DNS{
		Provider:  "rfc2136",
		Options:   map[string]Secret{"server": Secret(z.sets), "key_name": zoneKeyName, "key": zoneKey},
		Resolvers: []string{z.addr},
	}
}

func (z *zone) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
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

func (z *zone) update(w dns.ResponseWriter, q, r *dns.Msg) {
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
		var kept []string
		for _, v := range z.txt[name] {
			if v != value {
				kept = append(kept, v)
			}
		}
		z.txt[name] = kept
	}
	z.most = max(z.most, z.countLocked())
}

func (z *zone) countLocked() (n int) {
	for _, values := range z.txt {
		n += len(values)
	}
	return n
}

func (z *zone) answer(q dns.Question, r *dns.Msg) {
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
