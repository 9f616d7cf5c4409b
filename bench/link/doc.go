//go:build linux

// Package link emulates a network path: two network namespaces joined by a
// link with a delay, a rate, a queue, loss, reordering and duplicates. It needs
// root and Linux, and nothing of the kernel but TUN devices (netem is a module
// that many machines lack).
//
//	l, err := link.Open(link.Config{
//		AtoB: link.Conditions{Delay: 20 * time.Millisecond, Rate: 200e6, Queue: 1 << 20, Loss: 0.001},
//		BtoA: link.Conditions{Delay: 20 * time.Millisecond, Rate: 200e6, Queue: 1 << 20, Loss: 0.001},
//	})
//	defer l.Close()
//	server := exec.Command("iperf3", "-s")
//	err = l.B().Start(server) // on the machine at link.AddrB
//	client := exec.Command("iperf3", "-c", link.AddrB.String())
//	err = l.A().Start(client)
//	err = l.Set(link.AtoB, link.Conditions{Down: true}) // while packets move
//
// The path of a packet is: too large or link down? gone. No room in the queue?
// gone. Then it takes its time on the wire (size over rate), may be lost
// there, and arrives a delay later, perhaps held back or twice. All draws come
// from a seeded generator, three for every packet that the link sees, so the
// same seed treats the n-th packet of a direction alike whatever the timing
// and the other conditions.
//
// The namespaces have no names: they, the devices and the link end with the
// process at the latest, however it ends.
package link
