// Package pathmtu finds out how large the packets in the overlay may be: the
// path MTU discovery of RFC 8899, which believes nothing but answers, so that
// it works where the network drops large packets without a word.
//
//	prober := pathmtu.New(pathmtu.Config{Local: node, Send: stack.Send})
//	// what the stack gets of probes and answers: prober.Receive
//	path := prober.Open(peer, way, 0)
//	defer path.Close()
//
// A probe is a packet of its own, of the size in question and with nothing in
// it; it must leave unfragmented. The other end answers with a small packet.
// Each end asks for the direction in which it sends.
//
// A size is in question together with one that is sure to fit: when the small
// probe is answered three times and the large one never, the path is a black
// hole for that size. When neither is answered, nothing is learned, since the
// path may just be down, or the other end may be one that knows no probes.
//
// At the start the other end is asked whether the default size gets through,
// then for larger ones up to the jumbo packets that a loopback takes. While
// large packets are sent, the size in use is confirmed twice a second; if it has
// become a black hole, packets shrink to the base size at once, and the search
// begins anew from there. Every ten minutes, and sooner after a black hole, it is
// asked whether the path has grown. An idle path is not asked anything.
package pathmtu
