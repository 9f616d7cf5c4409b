// Package static serves a folder over HTTP, and nothing outside of it:
//
//	folder, err := static.Open("/srv/www", static.Options{Listing: true})
//	defer folder.Close()
//	http.Serve(listener, folder)
//
// Paths are resolved by the kernel below an [os.Root]: neither ".." nor a symbolic
// link leads out of the folder, and no race can change that. Hidden files (.git,
// .env) are not there for visitors, but for /.well-known.
package static

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Options say what is answered where there is no file.
type Options struct {
	Listing bool // list folders that have no index.html; else 404
	SPA     bool // /index.html for pages that are no file, as single-page apps want it
}

// Folder is an open folder. It is an http.Handler for GET and HEAD, with ranges,
// Last-Modified and ETag.
type Folder struct {
	root    *os.Root
	options Options
}

// Open opens a folder. It must be closed.
func Open(dir string, options Options) (*Folder, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("open folder: %w", err)
	}
	return &Folder{root, options}, nil
}

// Close lets go of the folder.
func (f *Folder) Close() error { return f.root.Close() }

const index = "index.html"

func (f *Folder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "files can only be read", http.StatusMethodNotAllowed)
		return
	}
	clean := path.Clean("/" + r.URL.Path)
	if hidden(clean) {
		f.missing(w, r, clean)
		return
	}
	name := filepath.FromSlash(strings.TrimPrefix(clean, "/"))
	if name == "" {
		name = "."
	}
	info, err := f.root.Stat(name) // before it is opened: opening a pipe would block
	switch {
	case err != nil:
		f.missing(w, r, clean)
	case info.IsDir() && !strings.HasSuffix(r.URL.Path, "/"):
		redirect(w, r, path.Base(clean)+"/")
	case info.IsDir():
		f.folder(w, r, name, clean)
	case !info.Mode().IsRegular() || strings.HasSuffix(r.URL.Path, "/"):
		f.missing(w, r, clean)
	default:
		f.file(w, r, name, info)
	}
}

// hidden tells whether any part of a path begins with a dot. Windows takes a backslash
// for a separator, too.
func hidden(clean string) bool {
	for part := range strings.FieldsFuncSeq(clean, func(r rune) bool { return r == '/' || r == '\\' }) {
		if strings.HasPrefix(part, ".") && part != ".well-known" {
			return true
		}
	}
	return false
}

// redirect keeps the query, and is relative: nothing is known here of the name
// under which visitors come.
func redirect(w http.ResponseWriter, r *http.Request, to string) {
	target := (&url.URL{Path: "./" + to, RawQuery: r.URL.RawQuery}).String()
	w.Header().Set("Location", target)
	w.WriteHeader(http.StatusMovedPermanently)
}

func (f *Folder) folder(w http.ResponseWriter, r *http.Request, name, clean string) {
	page := filepath.Join(name, index)
	if info, err := f.root.Stat(page); err == nil && info.Mode().IsRegular() {
		f.file(w, r, page, info)
		return
	}
	if !f.options.Listing {
		f.missing(w, r, clean)
		return
	}
	dir, err := f.root.Open(name)
	if err != nil {
		f.missing(w, r, clean)
		return
	}
	defer dir.Close()
	entries, err := dir.ReadDir(-1)
	if err != nil {
		http.Error(w, "the folder cannot be read", http.StatusInternalServerError)
		return
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return hidden(e.Name()) })
	list(w, r, clean, entries)
}

// file sends a regular file, with a tag of its time and size.
func (f *Folder) file(w http.ResponseWriter, r *http.Request, name string, info fs.FileInfo) {
	file, err := f.root.Open(name)
	if err != nil {
		status := http.StatusNotFound
		if errors.Is(err, fs.ErrPermission) {
			status = http.StatusForbidden
		}
		http.Error(w, http.StatusText(status), status)
		return
	}
	defer file.Close()
	w.Header().Set("ETag", fmt.Sprintf(`"%x-%x"`, info.ModTime().UnixNano(), info.Size()))
	w.Header().Set("Cache-Control", "no-cache") // asked for again, and answered with 304
	http.ServeContent(w, r, filepath.Base(name), info.ModTime(), file)
}

// missing answers for what is not there, or not for visitors.
func (f *Folder) missing(w http.ResponseWriter, r *http.Request, clean string) {
	if f.options.SPA && !hidden(clean) && path.Ext(clean) == "" {
		if info, err := f.root.Stat(index); err == nil && info.Mode().IsRegular() {
			f.file(w, r, index, info)
			return
		}
	}
	http.Error(w, "404: there is no such file", http.StatusNotFound)
}
