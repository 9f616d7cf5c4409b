package inspect

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"unicode/utf8"
)

// part is one of a multipart body.
type part struct {
	Name    string  `json:"name"`
	File    string  `json:"file,omitempty"`
	Headers []Field `json:"headers"`
	Size    int     `json:"size"`
	Text    string  `json:"text,omitempty"` // its beginning, if it is text
	Data    []byte  `json:"data,omitempty"` // its beginning, if it is none
	Cut     bool    `json:"cut,omitempty"`  // there was more
}

type partsReply struct {
	Parts []part `json:"parts"`
	Cut   bool   `json:"cut"` // the body is not whole, or has more parts
}

const (
	maxParts    = 200
	maxPartKept = 16 << 10
)

func (s *server) partsOf(w http.ResponseWriter, r *http.Request) {
	b, ok := s.storedBodyOf(w, r)
	if !ok {
		return
	}
	media, params, err := mime.ParseMediaType(b.mediaType)
	if err != nil || len(media) < 10 || media[:10] != "multipart/" || params["boundary"] == "" {
		refuse(w, http.StatusConflict, "not_multipart", "this body has no parts")
		return
	}
	content, cut := b.bytes, b.cut
	if decoded, short, err := decode(b.bytes, b.encoding); err == nil {
		content, cut = decoded, cut || short
	}
	reply := splitParts(content, params["boundary"])
	reply.Cut = reply.Cut || cut
	writeJSON(w, http.StatusOK, reply)
}

func splitParts(body []byte, boundary string) partsReply {
	reply := partsReply{Parts: []part{}}
	r := multipart.NewReader(bytes.NewReader(body), boundary)
	for {
		p, err := r.NextRawPart()
		if err != nil {
			reply.Cut = err != io.EOF
			return reply
		}
		if len(reply.Parts) == maxParts {
			reply.Cut = true
			return reply
		}
		content, err := io.ReadAll(p)
		out := part{Name: p.FormName(), File: p.FileName(), Headers: []Field{}, Size: len(content), Cut: err != nil || len(content) > maxPartKept}
		for name, values := range p.Header {
			for _, v := range values {
				out.Headers = append(out.Headers, Field{name, v})
			}
		}
		if shown, _ := text(content, maxPartKept); utf8.ValidString(shown) {
			out.Text = shown
		} else {
			out.Data = content[:min(len(content), maxPartKept)]
		}
		reply.Parts = append(reply.Parts, out)
	}
}
