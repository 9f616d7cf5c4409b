package keys

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// eachField calls use for each field of b. Of the tags in once, none may
// appear twice.
func eachField(b []byte, once []byte, use func(tag byte, value []byte) error) error {
	var seen [256]bool
	for len(b) > 0 {
		tag := b[0]
		n, width := binary.Uvarint(b[1:])
		if width <= 0 || n > uint64(len(b)-1-width) {
			return errors.New("a field ends early")
		}
		value := b[1+width:][:n]
		b = b[1+width:][n:]
		for _, t := range once {
			if t == tag && seen[tag] {
				return fmt.Errorf("field %d appears twice", tag)
			}
		}
		seen[tag] = true
		if err := use(tag, value); err != nil {
			return err
		}
	}
	return nil
}

// sized refuses a field of another length than size.
func sized(value []byte, size int) error {
	if len(value) != size {
		return fmt.Errorf("a field has %d bytes instead of %d", len(value), size)
	}
	return nil
}

func parseFields(b []byte) (Invite, error) {
	var invite Invite
	err := eachField(b, []byte{tagKey, tagNode, tagExpires, tagOverlay}, func(tag byte, v []byte) error {
		switch tag {
		case tagKey:
			if err := sized(v, Size); err != nil {
				return err
			}
			if [Size]byte(v) != ([Size]byte{}) {
				invite.Key = fromBytes([Size]byte(v))
			}
		case tagNode:
			if err := sized(v, 4); err != nil {
				return err
			}
			invite.Node = binary.BigEndian.Uint32(v)
		case tagExpires:
			if err := sized(v, 8); err != nil {
				return err
			}
			s := binary.BigEndian.Uint64(v)
			if s > maxExpires {
				return errors.New("its expiry makes no sense")
			}
			invite.Expires = time.Unix(int64(s), 0).UTC()
		case tagOverlay:
			if err := sized(v, 6); err != nil {
				return err
			}
			var a [16]byte
			copy(a[:], v)
			invite.Overlay = netip.PrefixFrom(netip.AddrFrom16(a), 48)
		case tagEdge:
			if len(invite.Edges) == maxEdges {
				return fmt.Errorf("it names more than %d edges", maxEdges)
			}
			edge, err := parseEdge(v)
			if err != nil {
				return err
			}
			invite.Edges = append(invite.Edges, edge)
		}
		return nil
	})
	return invite, err
}

func parseEdge(b []byte) (Edge, error) {
	var edge Edge
	err := eachField(b, []byte{tagEdgeKey, tagEdgeNode}, func(tag byte, v []byte) error {
		switch tag {
		case tagEdgeKey:
			if err := sized(v, Size); err != nil {
				return err
			}
			edge.Key = PublicFrom([Size]byte(v))
		case tagEdgeNode:
			if err := sized(v, 4); err != nil {
				return err
			}
			edge.Node = binary.BigEndian.Uint32(v)
		case tagEdgeEndpoint:
			if len(edge.Endpoints) == maxEndpoints {
				return fmt.Errorf("an edge has more than %d endpoints", maxEndpoints)
			}
			endpoint, err := parseEndpoint(v)
			if err != nil {
				return err
			}
			edge.Endpoints = append(edge.Endpoints, endpoint)
		}
		return nil
	})
	return edge, err
}

func parseEndpoint(b []byte) (Endpoint, error) {
	var p Endpoint
	err := eachField(b, []byte{tagEndpointKind, tagEndpointAddr}, func(tag byte, v []byte) error {
		switch tag {
		case tagEndpointKind:
			p.Kind = EndpointKind(v)
		case tagEndpointAddr:
			p.Addr = string(v)
		}
		return nil
	})
	return p, err
}
