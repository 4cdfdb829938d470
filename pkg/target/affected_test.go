package target

import (
	"cmp"
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
)

func TestAPodIsLookedUpByItsLabels(t *testing.T) {
	for _, tt := range []struct {
		selector string
		want     []pair
	}{
		{"app=qdrant", []pair{{"app", "qdrant"}}},
		{"app in (qdrant,redis)", []pair{{"app", "qdrant"}, {"app", "redis"}}},
		{"app in (a,b), tier=store", []pair{{"tier", "store"}}},
		{"app!=qdrant", nil},
		{"!app", nil},
		{"app", nil},
	} {
		selector, err := labels.Parse(tt.selector)
		if err != nil {
			t.Fatal(err)
		}
		got := required(selector)
		slices.SortFunc(got, func(a, b pair) int { return cmp.Compare(a.value, b.value) })
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s looks at pods with %v, want %v", tt.selector, got, tt.want)
		}
	}
}
