package wg

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

func sendTo(t *testing.T, c *net.UDPConn, p []byte, to netip.AddrPort) {
	t.Helper()
	if _, err := c.WriteToUDPAddrPort(p, to); err != nil {
		t.Fatal(err)
	}
}

// An initiation that an agent sends to both ports of its edge is one: WireGuard
// could answer both, and the agent would use the keys that the edge gave up.
func TestCopiesOfACallAreOne(t *testing.T) {
	first, second := UDP(loopback4), UDP(loopback4)
	got := openBind(t, Join(nil, first, second))
	c := listenUDP(t)
	defer c.Close()
	initiation := message(device.MessageInitiationType, device.MessageInitiationSize)
	last := message(device.MessageTransportType, 64) // comes after them, on each socket
	for _, to := range []netip.AddrPort{first.LocalAddr(), second.LocalAddr()} {
		sendTo(t, c, initiation, to)
		sendTo(t, c, last, to)
	}
	shown := 0
	for _, d := range take(t, got, 4) {
		if isInitiation([]byte(d.data)) {
			shown++
		}
	}
	if shown != 1 {
		t.Errorf("WireGuard is shown %d copies", shown)
	}
	// Another one of the same peer is another one.
	initiation[len(initiation)-1]++
	sendTo(t, c, initiation, second.LocalAddr())
	if d := take(t, got, 1)[0]; d.data != string(initiation) {
		t.Errorf("WireGuard is shown %d bytes of another call", len(d.data))
	}
}

// responseTo makes an answer to a call. It has no content.
func responseTo(initiation []byte) []byte {
	p := message(device.MessageResponseType, device.MessageResponseSize)
	copy(p[8:12], initiation[4:8])
	return p
}

// An agent that tries UDP, while its packets go over a stream, learns from the
// answer whether UDP works in both directions.
func TestAnswersGoBackTheWayOfTheirCalls(t *testing.T) {
	bind := UDP(loopback4)
	p := Join(nil, bind)
	got := openBind(t, p)
	caller, roamed := listenUDP(t), listenUDP(t)
	defer caller.Close()
	defer roamed.Close()
	call := func(from *net.UDPConn) []byte {
		t.Helper()
		initiation := message(device.MessageInitiationType, device.MessageInitiationSize)
		sendTo(t, from, initiation, bind.LocalAddr())
		take(t, got, 1)
		return initiation
	}
	elsewhere, err := p.At(addrOf(roamed))
	if err != nil {
		t.Fatal(err)
	}
	// arrives checks that an answer which WireGuard sends to elsewhere comes to c.
	arrives := func(c *net.UDPConn, answer []byte) {
		t.Helper()
		if err := p.Send([][]byte{answer}, elsewhere); err != nil {
			t.Fatal(err)
		}
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 2048)
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != string(answer) {
			t.Errorf("%d bytes, %v instead of the answer", n, err)
		}
	}
	initiation := call(caller)
	arrives(caller, responseTo(initiation))
	arrives(roamed, responseTo(initiation))                                                          // it was answered
	arrives(roamed, responseTo(message(device.MessageInitiationType, device.MessageInitiationSize))) // nobody called

	// Of two calls with one index, none is known to be the one that is answered.
	initiation = call(caller)
	initiation[len(initiation)-1]++
	sendTo(t, roamed, initiation, bind.LocalAddr())
	take(t, got, 1)
	arrives(roamed, responseTo(initiation))

	// The side that has chosen a way answers on it.
	initiation = call(caller)
	p.Pin(elsewhere)
	arrives(roamed, responseTo(initiation))
}

// What strangers send is forgotten.
func TestCallsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCalls()
		from := &Endpoint{}
		initiation := message(device.MessageInitiationType, device.MessageInitiationSize)
		if !c.note(initiation, from) || c.note(initiation, from) {
			t.Error("the first is a copy, or the second is none")
		}
		for i := range uint32(3 * maxCalls) {
			other := message(device.MessageInitiationType, device.MessageInitiationSize)
			binary.LittleEndian.PutUint32(other[4:], i)
			if !c.note(other, from) {
				t.Fatal("it is taken for a copy")
			}
			if len(c.oldest) > maxCalls || len(c.seen) > maxCalls || len(c.from) > maxCalls {
				t.Fatalf("%d, %d, %d are remembered", len(c.oldest), len(c.seen), len(c.from))
			}
		}
		time.Sleep(callLife + time.Nanosecond)
		if !c.note(initiation, from) {
			t.Error("it is remembered for too long")
		}
		if len(c.oldest) != 1 || len(c.seen) != 1 || len(c.from) != 1 {
			t.Errorf("%d, %d, %d are remembered", len(c.oldest), len(c.seen), len(c.from))
		}
		if got := c.caller(responseTo(initiation)); got != conn.Endpoint(from) {
			t.Errorf("the call came from %v", got)
		}
	})
}
