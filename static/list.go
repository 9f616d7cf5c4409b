package static

import (
	"cmp"
	"fmt"
	"html"
	"io/fs"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// row is one line of a listing.
type row struct {
	Name, Link, Size, Time string
	folder                 bool
}

// Its verbs are the path, twice, and the rows; why it is no html/template: ADR 52.
const page = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>%[1]s</title>
<style>body{font:16px/1.6 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}table{border-collapse:collapse;width:100%%}
td{padding:.1rem 1rem .1rem 0;white-space:nowrap}td:first-child{width:100%%;white-space:normal;overflow-wrap:anywhere}td+td{opacity:.7;text-align:right}</style>
</head><body><h1>%[1]s</h1><table>
%[2]s</table></body></html>
`

// list shows a folder's entries, folders first. What cannot be looked at is left
// out.
func list(w http.ResponseWriter, r *http.Request, clean string, entries []fs.DirEntry) {
	var rows []row
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			continue // it has just gone
		}
		one := row{Name: e.Name(), Size: size(info.Size()), Time: info.ModTime().UTC().Format(time.DateTime), folder: e.IsDir()}
		if e.IsDir() {
			one.Name, one.Size = one.Name+"/", ""
		}
		// A name may look like a scheme, such as "javascript:x".
		one.Link = "./" + strings.TrimPrefix((&url.URL{Path: one.Name}).EscapedPath(), "./")
		rows = append(rows, one)
	}
	slices.SortFunc(rows, func(a, b row) int {
		if a.folder != b.folder {
			if a.folder {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	if clean != "/" {
		rows = append([]row{{Name: "../", Link: "../"}}, rows...)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'")
	if r.Method == http.MethodHead {
		return
	}
	var lines strings.Builder
	for _, one := range rows {
		fmt.Fprintf(&lines, "<tr><td><a href=\"%s\">%s</a></td><td>%s</td><td>%s</td></tr>\n",
			html.EscapeString(one.Link), html.EscapeString(one.Name), one.Size, one.Time)
	}
	_, _ = fmt.Fprintf(w, page, html.EscapeString(clean), &lines) // an error here: the visitor has gone
}

func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, names := float64(n)/unit, "KMGTPE"
	for value >= unit && len(names) > 1 {
		value, names = value/unit, names[1:]
	}
	return fmt.Sprintf("%.1f %ciB", value, names[0])
}
