package netstack

import (
	"reflect"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// seat is where gVisor's endpoints keep their congestion control. gVisor has two, and no
// way to bring another one, though all that it asks of one is exported names. So ours is
// put in by reflection, and only if the fields there are what they are known to be:
// after an update that changes them, a test fails, and connections have gVisor's CUBIC.
type seat struct {
	ok                     bool
	sender, state, control int // fields: tcp.Endpoint.snd, and TCPSenderState and cc in that
}

func findSeat() seat {
	snd, ok := reflect.TypeFor[tcp.Endpoint]().FieldByName("snd")
	if !ok || snd.Type.Kind() != reflect.Pointer || snd.Type.Elem().Kind() != reflect.Struct {
		return seat{}
	}
	state, ok := snd.Type.Elem().FieldByName("TCPSenderState")
	if !ok || state.Type != reflect.TypeFor[tcp.TCPSenderState]() {
		return seat{}
	}
	cc, ok := snd.Type.Elem().FieldByName("cc")
	if !ok || cc.Type.Kind() != reflect.Interface || !reflect.TypeFor[*cubic]().Implements(cc.Type) {
		return seat{}
	}
	for _, f := range []reflect.StructField{snd, state, cc} {
		if len(f.Index) != 1 {
			return seat{}
		}
	}
	return seat{ok: true, sender: snd.Index[0], state: state.Index[0], control: cc.Index[0]}
}

// take gives ep, which is connected to p and locked, a congestion control of its own.
func (at seat) take(ep *tcp.Endpoint, p *peer) {
	if !at.ok {
		return
	}
	sender := reflect.ValueOf(ep).Elem().Field(at.sender)
	if sender.IsNil() {
		return
	}
	state := sender.Elem().Field(at.state)
	ours := newCubic((*tcp.TCPSenderState)(unsafe.Pointer(state.UnsafeAddr())), p)
	cc := sender.Elem().Field(at.control)
	reflect.NewAt(cc.Type(), unsafe.Pointer(cc.UnsafeAddr())).Elem().Set(reflect.ValueOf(ours))
}
