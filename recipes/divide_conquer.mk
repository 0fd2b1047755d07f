# Divide and conquer: clusters of the training images, a learner with a part of the vector for each.
#   make -C recipes divide-heads-grocery40 DATA=/path/to/grocery40 WEIGHTS=/path/to/mobilenetv2_100.safetensors
#   make -C recipes divide-heads-caltech101 DATA=... WEIGHTS=...
#   make -C recipes divide-grocery40 DATA=... WEIGHTS=...   and divide-caltech101; divide-omniglot DATA=...
#   make -C recipes divide-digits                           the pipeline in some minutes
#   make -C recipes divide-choose-grocery40 DATA=... WEIGHTS=...   how settings were chosen; -caltech101 too
# The papers' settings and what they report (divide-cub200 and others) are in divide_conquer_papers.mk.
# A row is one course of EPOCHS epochs with the margin loss and distance-weighted mining:
#   margin       the whole vector, nothing is divided
#   slices-K     CVPR 2019: K clusters, K slices of the vector
#   masks-fixed, masks-learn   TPAMI 2021: masks over the vector, as many as the split has clusters;
#                it starts with one and is doubled round by round, up to MASKS
# and what is gone from slices-4:
#   slices-4-random     clusters of classes by chance, the same in all rounds
#   slices-4-once       no clustering after the first
#   slices-4-undivided  every learner has all the data: images dealt by chance, anew in each round
#   slices-4-unparted   clusters, but the whole vector learns from the start
#   slices-4-no-full    slices learn until the clusters are merged
#   slices-4-no-merge   no last phase with all images as one cluster
# Rounds are files: `train` carries out ROUND epochs and keeps its optimiser; `embed` and
# `cluster-split` make the clusters of the next ones. All rows take the same number of steps, of
# batches of one size as far as clusters have the classes. FULL: from this epoch clusters train the
# whole vector; MERGE: from this one all images are one cluster; masks are not merged, as published.
# `heads` learn one linear layer 1280 -> 128 on the vectors of a frozen MobileNetV2; their clusters
# are those of the 128-d vectors. Elsewhere they are those of the pooled features, in fp32, so that
# they do not hang on one processor's bf16.
# One line per finished run in results/divide_*.jsonl; runs that are there are skipped, and an
# interrupted one goes on (--resume). With other settings `make clean` comes first.
DIVIDE := $(RUN)/divide
DIVIDE_TABLES ?= $(CURDIR)/results
DIVIDE_SEEDS ?= 0 1 2 3 4
DIVIDE_ROWS ?= margin slices-2 slices-4 slices-8 masks-fixed masks-learn
DIVIDE_ABLATIONS ?= $(addprefix slices-4-,random once undivided unparted no-full no-merge)
DIVIDE_METRICS ?= precision@1,recall@10,map@r,r_precision,nmi

# The steps of all tables. A target sets the arrays lab and test (DATA with its options), from
# (options of a new model) and view (options of `embed`, for clusters), and epochs, round, full,
# merge, lr, masks, learned (settings of learned masks) and least (classes of a cluster).
# $(1) folder of the runs, $(2) table, $(3) options of `train`
define DIVIDE_STEPS
mkdir -p $(1)
seed=0 note=
learn() {
  local model=$$1 rate=(--lr $$lr)
  shift
  $(MLTOOL) train "$${lab[@]}" $(3) --loss margin --miner distance-weighted "$${rate[@]}" "$$@" \
    --seed $$seed -q --resume -o $$model.safetensors
}
split() {
  local model=$$1 output=$$2 sizes=(--min-classes $$least)
  shift 2
  $(MLTOOL) embed $$model.safetensors "$${lab[@]}" "$${view[@]}" --precision fp32 --threads 1 -q --resume \
    -o $$model.h5
  $(MLTOOL) cluster-split $$model.h5 "$${sizes[@]}" "$$@" --seed $$seed --threads 1 -q -o $$output > $$output.report
}
divide() {
  local kind=$$1 base=$$2 at=$$3 words=(-k $$count)
  local output=$$base-from-$$at.csv
  if [[ $$kind == masks-* && $$at -gt 0 && $$now -lt $$masks ]]; then
    words=(-k $$now --double) now=$$((2 * now))
  elif [[ $$kind == masks-* ]]; then
    words=(-k $$now)
  fi
  if [[ $$at -gt 0 ]]; then words+=(--previous $$clusters); fi
  case $$kind in
    *-random) if [[ $$at -eq 0 ]]; then split $$model $$output --random "$${words[@]}"; clusters=$$output; fi ;;
    *-once) if [[ $$at -eq 0 ]]; then split $$model $$output "$${words[@]}"; clusters=$$output; fi ;;
    *-undivided) if [[ $$at -eq 0 ]]; then split $$model $$base-dealt.csv "$${words[@]}"; fi
      $(BIN)/python relabel.py $$base-dealt.csv $$output --shuffle $$((1000 * seed + at)) --column cluster
      clusters=$$output ;;
    *) split $$model $$output "$${words[@]}"
      clusters=$$output ;;
  esac
}
describe() {
  parts=() phases=(--full-from $$full --merge-from $$merge) now=1
  count=$$(cut -d- -f2 <<< $$1)
  case $$1 in
    masks-fixed) parts=(--parts masks:count=$$masks,learn=false) phases=(--full-from $$full) ;;
    masks-learn) parts=(--parts masks:count=$$masks,$$learned) phases=(--full-from $$full) ;;
    *) parts=(--parts slices:count=$$count) ;;
  esac
  case $$1 in
    *-unparted) phases=(--full-from 0 --merge-from $$merge) ;;
    *-no-full) phases=(--merge-from $$merge) ;;
    *-no-merge) phases=(--full-from $$full) ;;
  esac
}
rounds() {
  local kind=$$1 base=$$2 at last begin=("$${from[@]}") model=$(1)/start-$$seed
  local parts phases now count clusters
  describe $$kind
  learn $$model "$${from[@]}" --epochs 0
  for ((at = 0; at < epochs; at += round)); do
    last=$$((at + round < epochs ? at + round : epochs))
    divide $$kind $$base $$at
    learn $$base-$$last "$${begin[@]}" "$${parts[@]}" --clusters $$clusters "$${phases[@]}" \
      --epochs $$epochs --from-epoch $$at --to-epoch $$last --save-optimizer
    model=$$base-$$last begin=(--init $$base-$$last.safetensors --keep-optimizer)
  done
  trained=$$model
}
row() {
  local row=$$1$${note:+/$$note} start=$$(date +%s) base seconds
  $(RECORD) --done $(2) "run=$$row" seed=$$seed && return
  base=$(1)/$$1-$$seed$${note:+-$$note} trained=
  if [[ $$1 == margin ]]; then
    learn $$base "$${from[@]}" --epochs $$epochs
    trained=$$base
  else
    rounds $$1 $$base
  fi
  $(MLTOOL) embed $$trained.safetensors "$${test[@]}" -q --resume -o $$trained.test.h5
  seconds=$$(($$(date +%s) - start))
  $(MLTOOL) evaluate $$trained.test.h5 --metrics $(DIVIDE_METRICS) --json -q \
    | $(RECORD) $(2) "run=$$row" seed=$$seed seconds=$$seconds
}
rows() {
  local kind
  for seed in $(DIVIDE_SEEDS); do
    for kind in $(DIVIDE_ROWS) $(DIVIDE_ABLATIONS); do row $$kind; done
  done
  $(TABLE) $(2) --interval
}
endef

# $(1) data set
define DIVIDE_NEEDS
test -d "$(DATA)" || { echo "DATA=/path/to/$(1) is needed" >&2; exit 2; }
test -f "$(WEIGHTS)" || { echo "WEIGHTS=/path/to/weights.safetensors is needed" >&2; exit 2; }
mkdir -p $(DIVIDE)
endef

# $(1) data set, $(2) training and $(3) test classes, $(4) sizes of images
define DIVIDE_HEADS
$(call DIVIDE_NEEDS,$(1))
all=$(DIVIDE)/$(1).h5
$(MLTOOL) embed mobilenetv2_100 --weights $(WEIGHTS) --pooling avg $(4) $(DATA) -q --resume -o $$all
lab=($$all --classes $(2)) test=($$all --classes $(3)) from=(--arch vectors --dim 128 --projection linear) view=()
endef
DIVIDE_HEAD := --batch-size 64 --images-per-class 4 --optimizer adamw --schedule cosine --weight-decay 1e-4 \
  --threads 1

# $(1) data set, $(2) training and $(3) test classes
define DIVIDE_IMAGES
$(call DIVIDE_NEEDS,$(1))
lab=($(DATA) --classes $(2)) test=($(DATA) --classes $(3)) view=(--penultimate)
from=(--arch mobilenetv2_100 --weights $(WEIGHTS) --image-size 64 --resize 73 --dim 128 --pooling avg \
  --projection linear)
endef
DIVIDE_NETWORK := --freeze-bn --batch-size 64 --images-per-class 4

# Training and test classes; and those of -choose, among the training classes alone.
DIVIDE_grocery40 = $(EVEN_CLASSES)
DIVIDE_grocery40_test = $(ODD_CLASSES)
DIVIDE_grocery40_choose = $(call SLADE_EVEN,0,24)
DIVIDE_grocery40_choose_test = $(call SLADE_EVEN,26,38)
DIVIDE_caltech101 := 0-49
DIVIDE_caltech101_test := 50-99
DIVIDE_caltech101_choose := 0-34
DIVIDE_caltech101_choose_test := 35-49
DIVIDE_grocery40_sizes := --image-size 128 --resize 146
DIVIDE_caltech101_sizes := --image-size 112 --resize 128
DIVIDE_grocery40_clusters := least=2 masks=4
DIVIDE_caltech101_clusters := least=4 masks=8

.PHONY: divide-heads-grocery40 divide-heads-caltech101
divide-heads-grocery40 divide-heads-caltech101: divide-heads-%: $(VENV)/installed
	$(call DIVIDE_HEADS,$*,$(DIVIDE_$*),$(DIVIDE_$*_test),$(DIVIDE_$*_sizes))
	$(call DIVIDE_STEPS,$(DIVIDE)/heads_$*,$(DIVIDE_TABLES)/divide_heads_$*.jsonl,$(DIVIDE_HEAD))
	$(DIVIDE_SETTINGS)
	$(DIVIDE_$*_clusters)
	rows
divide-heads-grocery40: DIVIDE_SETTINGS = epochs=10 round=1 full=4 merge=9 lr=3e-4 learned=learn=true
divide-heads-caltech101: DIVIDE_SETTINGS = epochs=10 round=1 full=4 merge=9 lr=3e-4 learned=learn=true

# Heads on training classes alone: first the rate, by the margin loss; then, with that one, when the
# whole vector begins to learn, by slices-4, and the masks' rate and orthogonality, by masks-learn.
DIVIDE_CHOOSE_LR ?= 1e-4 3e-4 1e-3
DIVIDE_CHOOSE_FULL ?= 2 4 7
DIVIDE_CHOOSE_MASKS ?= learn=true,orthogonality=0.01 learn=true,orthogonality=0.01,lr=0.03 \
  learn=true,orthogonality=1,lr=0.03
DIVIDE_CHOOSE_SEEDS ?= 0 1
.PHONY: divide-choose-grocery40 divide-choose-caltech101
divide-choose-grocery40 divide-choose-caltech101: divide-choose-%: $(VENV)/installed
	$(call DIVIDE_HEADS,$*,$(DIVIDE_$*_choose),$(DIVIDE_$*_choose_test),$(DIVIDE_$*_sizes))
	$(call DIVIDE_STEPS,$(DIVIDE)/choose_$*,$(DIVIDE_TABLES)/divide_choose_$*.jsonl,$(DIVIDE_HEAD))
	epochs=10 round=1 full=4 merge=9 learned=learn=true
	$(DIVIDE_$*_clusters)
	for seed in $(DIVIDE_CHOOSE_SEEDS); do
	  for lr in $(DIVIDE_CHOOSE_LR); do
	    note=lr=$$lr
	    row margin
	  done
	done
	$(DIVIDE_CHOSEN)
	for seed in $(DIVIDE_CHOOSE_SEEDS); do
	  for full in $(DIVIDE_CHOOSE_FULL); do
	    note=full=$$full
	    row slices-4
	  done
	  full=4
	  for learned in $(DIVIDE_CHOOSE_MASKS); do
	    note=$$learned
	    row masks-learn
	  done
	done
	$(TABLE) $(DIVIDE_TABLES)/divide_choose_$*.jsonl
divide-choose-grocery40: DIVIDE_CHOSEN = lr=3e-4
divide-choose-caltech101: DIVIDE_CHOSEN = lr=3e-4

.PHONY: divide-grocery40 divide-caltech101 divide-omniglot divide-digits
divide-grocery40 divide-caltech101: divide-%: $(VENV)/installed
	$(call DIVIDE_IMAGES,$*,$(DIVIDE_$*),$(DIVIDE_$*_test))
	$(call DIVIDE_STEPS,$(DIVIDE)/$*,$(DIVIDE_TABLES)/divide_$*.jsonl,$(DIVIDE_NETWORK))
	epochs=10 round=2 full=6 merge=9 lr=1e-3 learned=learn=true
	$(DIVIDE_$*_clusters)
	rows

divide-omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	lab=(omniglot:$(DATA):background) test=(omniglot:$(DATA):evaluation) view=(--penultimate)
	from=(--arch resnet10t --image-size 32 --resize 32 --dim 128 --pooling gem --projection linear)
	$(call DIVIDE_STEPS,$(DIVIDE)/omniglot,$(DIVIDE_TABLES)/divide_omniglot.jsonl,--augment affine --no-freeze-bn)
	epochs=5 round=1 full=3 merge=4 lr=3e-3 learned=learn=true masks=4 least=8
	rows

# Two clusters of the digits 0 to 4, the digits 5 to 9 as a test: small enough to see every step.
divide-digits: DIVIDE_ROWS = margin slices-2 masks-learn
divide-digits: DIVIDE_ABLATIONS =
divide-digits: DIVIDE_SEEDS = 0
divide-digits: DIVIDE_COURSE = epochs=4 round=1 full=2 merge=3
divide-digits: $(VENV)/installed
	lab=(digits:train $(DIVIDE_LIMIT)) test=(digits:test $(DIVIDE_LIMIT)) view=(--penultimate)
	from=($(or $(DIVIDE_DIGITS),--arch resnet10t --image-size 32 --resize 32 --dim 128) --projection linear)
	$(call DIVIDE_STEPS,$(DIVIDE)/digits,$(DIVIDE_TABLES)/divide_digits.jsonl,--augment affine -b 50 --no-freeze-bn)
	$(DIVIDE_COURSE) lr=3e-3 learned=learn=true masks=2 least=2
	rows
