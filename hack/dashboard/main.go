// Command dashboard writes the Grafana dashboard, as JSON, to standard output.
// The panels are in panels.go; here is what all of them share.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

func main() {
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	out.SetEscapeHTML(false)
	if err := out.Encode(newDashboard()); err != nil {
		fmt.Fprintln(os.Stderr, "dashboard:", err)
		os.Exit(1)
	}
}

// object is a JSON object. Grafana's schema has some hundred types of which this
// needs the fewest fields; defaults fill in the rest.
type object = map[string]any

// source is the data source that a person chooses above the dashboard.
var source = object{"type": "prometheus", "uid": "${datasource}"}

// panel is one panel before it has a place.
type panel struct {
	title, description string
	kind               string // of Grafana: stat, timeseries, table, heatmap
	width, height      int    // of 24 columns; rows of about 30 pixels
	unit               string // of Grafana: s, percentunit, short, bytes
	queries            []query
	thresholds         []threshold
	stacked            bool
	// matrix makes a table of rows by the first label and columns by the second.
	matrix *[2]string
	// hidden are the columns of a table that say nothing.
	hidden []string
}

type query struct {
	expr, legend string
	instant      bool
}

// threshold colours values from a number on.
type threshold struct {
	from  float64
	color string
}

// row is panels under one heading, laid out from left to right.
type row struct {
	title  string
	panels []panel
}

func newDashboard() object {
	var panels []object
	id, y := 0, 0
	place := func(p object, x, w, h int) {
		id++
		p["id"] = id
		p["gridPos"] = object{"x": x, "y": y, "w": w, "h": h}
		panels = append(panels, p)
	}
	for _, r := range rows {
		place(object{"type": "row", "title": r.title, "collapsed": false, "panels": []object{}}, 0, 24, 1)
		y++
		x, tallest := 0, 0
		for _, p := range r.panels {
			if x+p.width > 24 {
				x, y, tallest = 0, y+tallest, 0
			}
			place(p.object(), x, p.width, p.height)
			x, tallest = x+p.width, max(tallest, p.height)
		}
		y += tallest
	}
	return object{
		"uid":           "netlatency",
		"title":         "netlatency",
		"description":   "Round trips between nodes, and where they put pods. Needs the chart's recording rules, and agents and schedulers that are scraped.",
		"tags":          []string{"netlatency", "scheduling"},
		"schemaVersion": 39,
		"editable":      true,
		"graphTooltip":  1, // one crosshair for all panels
		"refresh":       "1m",
		"time":          object{"from": "now-6h", "to": "now"},
		"timezone":      "browser",
		"links": []object{{
			"type": "link", "title": "What to do", "tooltip": "docs/operations.md", "icon": "doc",
			"targetBlank": true, "asDropdown": false, "includeVars": false, "keepTime": false, "tags": []string{},
			"url": "https://github.com/netlatency/netlatency/blob/main/docs/operations.md",
		}},
		"annotations": object{"list": []object{}},
		"templating": object{"list": []object{
			{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": object{"selected": false, "text": "default", "value": "default"}, "options": []object{}, "refresh": 1, "hide": 0},
			variable("profile", "Profile", "label_values(netlatency_stale_after_seconds, profile)"),
			variable("provider", "From", "label_values(netlatency:provider_rtt_seconds:increase5m, provider)"),
			variable("peer_provider", "To", "label_values(netlatency:provider_rtt_seconds:increase5m, peer_provider)"),
		}},
		"panels": panels,
	}
}

// variable is a choice of values of a label, several or all.
func variable(name, label, expr string) object {
	return object{
		"name": name, "label": label, "type": "query", "datasource": source, "definition": expr,
		"query":   object{"qryType": 1, "query": expr, "refId": "PrometheusVariableQueryEditor-VariableQuery"},
		"refresh": 2, "sort": 1, "multi": true, "includeAll": true, "allValue": ".*", "hide": 0,
		"current": object{"selected": true, "text": []string{"All"}, "value": []string{"$__all"}}, "options": []object{},
	}
}

func (p panel) object() object {
	targets := make([]object, len(p.queries))
	for i, q := range p.queries {
		target := object{
			"refId": string(rune('A' + i)), "datasource": source, "editorMode": "code",
			"expr": q.expr, "legendFormat": q.legend, "instant": q.instant, "range": !q.instant,
		}
		if q.legend == "" {
			target["legendFormat"] = "__auto"
		}
		switch p.kind {
		case "table":
			target["format"] = "table"
		case "heatmap":
			target["format"] = "heatmap"
		default:
			target["format"] = "time_series"
		}
		targets[i] = target
	}
	defaults := object{"unit": p.unit, "custom": object{}}
	steps := []object{{"color": "green", "value": nil}}
	for _, t := range p.thresholds {
		if t.from < 0 { // below the first of the others
			steps[0]["color"] = t.color
			continue
		}
		steps = append(steps, object{"color": t.color, "value": t.from})
	}
	defaults["thresholds"] = object{"mode": "absolute", "steps": steps}
	options := object{}
	switch p.kind {
	case "stat":
		defaults["color"] = object{"mode": "thresholds"}
		options = object{
			"reduceOptions": object{"calcs": []string{"lastNotNull"}, "fields": "", "values": false},
			"colorMode":     "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto", "textMode": "auto",
		}
	case "timeseries":
		custom := object{"drawStyle": "line", "lineWidth": 1, "fillOpacity": 0, "showPoints": "never", "spanNulls": false}
		if p.stacked {
			custom["fillOpacity"] = 40
			custom["stacking"] = object{"mode": "normal", "group": "A"}
		}
		defaults["custom"] = custom
		defaults["color"] = object{"mode": "palette-classic"}
		defaults["min"] = 0
		options = object{
			"legend":  object{"displayMode": "table", "placement": "bottom", "showLegend": true, "calcs": []string{"lastNotNull", "max"}},
			"tooltip": object{"mode": "multi", "sort": "desc"},
		}
	case "table":
		options = object{"showHeader": true, "cellHeight": "sm"}
		if p.matrix != nil {
			defaults["color"] = object{"mode": "continuous-GrYlRd"}
			defaults["custom"] = object{"cellOptions": object{"type": "color-background", "mode": "basic"}, "align": "auto"}
		}
	case "heatmap":
		options = object{
			"calculate": false, "cellGap": 0,
			"color":   object{"mode": "scheme", "scheme": "Spectral", "steps": 64, "reverse": true, "exponent": 0.5, "fill": "dark-orange", "scale": "exponential"},
			"yAxis":   object{"unit": p.unit, "axisPlacement": "left", "reverse": false},
			"tooltip": object{"mode": "single", "showColorScale": false, "yHistogram": false},
			"legend":  object{"show": true}, "exemplars": object{"color": "rgba(255,0,255,0.7)"},
			"filterValues": object{"le": 1e-9}, "rowsFrame": object{"layout": "auto"}, "showValue": "never",
		}
	}
	o := object{
		"type": p.kind, "title": p.title, "description": p.description, "datasource": source, "targets": targets,
		"fieldConfig": object{"defaults": defaults, "overrides": []object{}}, "options": options,
	}
	switch {
	case p.matrix != nil:
		o["transformations"] = []object{{
			"id":      "groupingToMatrix",
			"options": object{"rowField": p.matrix[0], "columnField": p.matrix[1], "valueField": "Value", "emptyValue": "null"},
		}}
	case p.kind == "table":
		excluded := object{"Time": true, "Value": false}
		for _, name := range p.hidden {
			excluded[name] = true
		}
		o["transformations"] = []object{{"id": "organize", "options": object{"excludeByName": excluded, "indexByName": object{}, "renameByName": object{}}}}
	}
	return o
}
