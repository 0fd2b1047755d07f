# SLADE: a teacher labels images without labels, a student learns from both; then it is the teacher.
#   make -C recipes slade-heads-grocery40 DATA=/path/to/grocery40 WEIGHTS=/path/to/mobilenetv2_100.safetensors
#   make -C recipes slade-grocery40 DATA=... WEIGHTS=...    and slade-caltech101, slade-omniglot DATA=...
#   make -C recipes slade-choose-grocery40 DATA=... WEIGHTS=...   how the settings were chosen; -caltech101 too
# The papers' settings (slade-cub200, slade-cars196, slade-inshop) are in slade_slides.mk.
# Class numbers are in alphabetical order. grocery40: of the 20 even-numbered classes 12 have labels
# (0 to 22) and 8 have none (24 to 38), the odd-numbered ones are the test. Caltech-101: labels 0-19,
# none 20-49, test 50-99. Omniglot: labels in alphabets A to G (0-495), none in the other background
# alphabets (496-963), test: the evaluation alphabets.
# A row is START/LOSS/MODEL. START: `given` weights (Omniglot: random ones), or `ssl`: SwAV on labelled
# and unlabelled images from there. MODEL: T the teacher, T2 one with twice the steps, S the student of
# ROUNDS rounds, S-2 of two, and from what S differs:
#   S-plain          no basis: the pseudo-labels decide        S-unmined     the basis mines nothing
#   S-no-separation  no similarity-distribution loss           S-shuffled    pseudo-labels by chance
#   S-truth          true labels: the ceiling                  S-continued   starts from the teacher
# S takes as many steps as T, each with as many unlabelled images as labelled ones.
# `heads` learn one linear layer 1280 -> 128 on the vectors of a frozen MobileNetV2.
# One line per finished run in results/slade_*.jsonl; runs that are there are skipped, and an interrupted
# one goes on (--resume). With other settings `make clean` comes first.
SLADE := $(RUN)/slade
SLADE_TABLES ?= $(CURDIR)/results
SLADE_SEEDS ?= 0 1 2 3 4
SLADE_STARTS ?= given ssl
SLADE_LOSSES ?= contrastive multi-similarity
SLADE_MODELS ?= T T2 S
SLADE_ABLATIONS ?= S-plain S-unmined S-no-separation S-shuffled S-truth S-2 S-continued
ROUNDS ?= 1

# The steps of all tables. A target defines `choose_start START`, which sets the arrays lab, unlab and
# test (DATA with its options) and from (options of a new model), and `use_list CSV`, which sets pseudo
# (options that name the pseudo-labels); and epochs, lr, k, weight (of the second stream) and basis.
# $(1) folder of the runs, $(2) table, $(3) options of `train`
define SLADE_STEPS
mkdir -p $(1)
seed=0 note=
learn() {
  local model=$$1 length=(--lr $$lr --epochs $$2)
  shift 2
  $(MLTOOL) train "$${lab[@]}" $(3) "$${length[@]}" --seed $$seed "$$@" -q --resume -o $$model
}
label() {
  $(MLTOOL) embed $$1.safetensors "$${unlab[@]}" -q --resume -o $$1.unlabelled.h5
  $(MLTOOL) pseudolabel $$1.unlabelled.h5 --method kmeans:k=$$k,restarts=3 --threads 1 --seed $$seed -q -o $$1.csv > $$1.quality
}
teach() { learn $$1.safetensors $$2 "$${from[@]}" --loss $$loss; }
study() {
  local teacher=$$1 model=$$2 kind=$$3 list=$$1.csv begin=("$${from[@]}") by=slade:$$basis words
  label $$teacher
  case $$kind in
    S-plain) by= ;;
    S-unmined) by=$$by,mining=none ;;
    S-no-separation) by=$$by,distribution=0 ;;
    S-shuffled) list=$$teacher.shuffled.csv
      $(BIN)/python relabel.py $$teacher.csv $$list --shuffle $$seed ;;
    S-truth) list=$$teacher.truth.csv
      $(BIN)/python relabel.py $$teacher.csv $$list --truth ;;
    S-continued) begin=(--init $$teacher.safetensors) ;;
  esac
  use_list $$list
  words=("$${pseudo[@]}" --unlabeled-loss $$loss:weight=$$weight)
  if [[ -n $$by ]]; then words+=(--basis $$by); fi
  learn $$model.safetensors $$epochs "$${begin[@]}" --loss $$loss "$${words[@]}"
}
graduate() {
  local model=$$1-T round
  teach $$model $$epochs
  for ((round = 1; round <= $$3; round++)); do
    study $$model $$1-$$2-$$round $$2
    model=$$1-$$2-$$round
  done
  trained=$$model
}
row() {
  local row=$$1/$$2/$$3$${note:+/$$note} start=$$(date +%s) base seconds
  loss=$$2 trained=
  $(RECORD) --done $(2) "run=$$row" seed=$$seed && return
  choose_start $$1
  base=$(1)/$$1-$$2-$$seed$${note:+-$$note}
  case $$3 in
    T) graduate $$base T 0 ;;
    T2) trained=$$base-T2
      teach $$trained $$((2 * epochs)) ;;
    S-2) graduate $$base S 2 ;;
    *) graduate $$base $$3 $(ROUNDS) ;;
  esac
  $(MLTOOL) embed $$trained.safetensors "$${test[@]}" -q --resume -o $$trained.test.h5
  seconds=$$(($$(date +%s) - start))
  $(MLTOOL) evaluate $$trained.test.h5 --json -q \
    | $(RECORD) $(2) "run=$$row" seed=$$seed seconds=$$seconds
}
rows() {
  local first second third
  for seed in $(SLADE_SEEDS); do
    for first in $(SLADE_STARTS); do
      for second in $(SLADE_LOSSES); do
        for third in $(SLADE_MODELS); do row $$first $$second $$third; done
      done
    done
    for third in $(SLADE_ABLATIONS); do
      row $(firstword $(SLADE_STARTS)) $(lastword $(SLADE_LOSSES)) $$third
    done
  done
  $(TABLE) $(2) --interval
}
endef

# The network behind the heads and the fine-tuned MobileNetV2: as given, or after SwAV from there.
# At 64 px, because two cores learn no more in ten minutes; the default queue of 1,024 holds most of
# 1,437 images, and with it the loss rose above ln K again. $(1) data set, $(2) labelled and unlabelled
# classes
SLADE_PRETRAINING := --method swav:prototypes=32,queue=0 --augment views:small=0 --lr-backbone 3e-4 \
  --epochs 6 --image-size 64 --resize 73
define SLADE_PRETRAIN
test -d "$(DATA)" || { echo "DATA=/path/to/$(1) is needed" >&2; exit 2; }
test -f "$(WEIGHTS)" || { echo "WEIGHTS=/path/to/weights.safetensors is needed" >&2; exit 2; }
pretrain() {
  mkdir -p $(SLADE)
  ssl=$(SLADE)/$(1)-ssl.safetensors
  $(MLTOOL) pretrain $(DATA) --classes $(2) $(SLADE_PRETRAINING) --arch mobilenetv2_100 \
    --weights $(WEIGHTS) --seed 0 -q --resume -o $$ssl
}
endef

# $(1) data set, $(2) labelled, $(3) unlabelled and $(4) test classes, $(5) sizes of images
define SLADE_HEADS
$(call SLADE_PRETRAIN,$(1),$(2)$(comma)$(3))
choose_start() {
  local network=(mobilenetv2_100 --weights $(WEIGHTS) --pooling avg $(5))
  if [[ $$1 == ssl ]]; then pretrain; network=($$ssl $(5)); fi
  all=$(SLADE)/$(1)-$$1.h5 few=$(SLADE)/$(1)-$$1-unlabelled-$(words $(subst $(comma), ,$(3))).h5
  $(MLTOOL) embed "$${network[@]}" $(DATA) -q --resume -o $$all
  $(MLTOOL) embed "$${network[@]}" $(DATA) --classes $(3) -q --resume -o $$few
  lab=($$all --classes $(2)) unlab=($$few) test=($$all --classes $(4)) from=()
}
use_list() { pseudo=(--unlabeled $$few --unlabeled-labels $$1); }
endef
SLADE_HEAD := --arch vectors --dim 128 --projection linear --batch-size 64 --images-per-class 4 \
  --optimizer adamw --schedule cosine --weight-decay 1e-4 --threads 1

# $(1) data set, $(2) labelled, $(3) unlabelled and $(4) test classes, $(5) sizes of images
define SLADE_IMAGES
$(call SLADE_PRETRAIN,$(1),$(2)$(comma)$(3))
choose_start() {
  lab=($(DATA) --classes $(2)) unlab=($(DATA) --classes $(3)) test=($(DATA) --classes $(4))
  from=(--arch mobilenetv2_100 --weights $(WEIGHTS) $(5))
  if [[ $$1 == ssl ]]; then pretrain; from=(--init $$ssl); fi
}
use_list() { pseudo=(--unlabeled $$1:all); }
endef
SLADE_NETWORK := $(PRETRAINED) --batch-size 60 --images-per-class 5

# Which classes are labelled, unlabelled and tested; and behind -choose among these two alone.
SLADE_EVEN = $(subst $(space),$(comma),$(foreach n,$(shell seq $(1) 2 $(2)),$(n)-$(n)))
SLADE_grocery40 = $(call SLADE_EVEN,0,22)
SLADE_grocery40_unlabelled = $(call SLADE_EVEN,24,38)
SLADE_grocery40_test := $(ODD_CLASSES)
SLADE_grocery40_choose = $(call SLADE_EVEN,0,16)
SLADE_grocery40_choose_unlabelled = $(call SLADE_EVEN,24,32)
SLADE_grocery40_choose_test = $(call SLADE_EVEN,18,22),$(call SLADE_EVEN,34,38)
SLADE_caltech101 := 0-19
SLADE_caltech101_unlabelled := 20-49
SLADE_caltech101_test := 50-99
SLADE_caltech101_choose := 0-13
SLADE_caltech101_choose_unlabelled := 20-39
SLADE_caltech101_choose_test := 14-19,40-49
empty :=
space := $(empty) $(empty)

.PHONY: slade-heads-grocery40 slade-heads-caltech101
slade-heads-grocery40 slade-heads-caltech101: slade-heads-%: $(VENV)/installed
	$(call SLADE_HEADS,$*,$(SLADE_$*),$(SLADE_$*_unlabelled),$(SLADE_$*_test),$(SLADE_SIZES))
	$(call SLADE_STEPS,$(SLADE)/heads_$*,$(SLADE_TABLES)/slade_heads_$*.jsonl,$(SLADE_HEAD))
	$(SLADE_SETTINGS)
	rows
slade-%-grocery40: SLADE_SIZES = --image-size 128 --resize 146
slade-%-caltech101: SLADE_SIZES = --image-size 112 --resize 128
slade-heads-grocery40: SLADE_SETTINGS = epochs=10 lr=3e-4 k=60 weight=0.3 basis=
slade-heads-caltech101: SLADE_SETTINGS = epochs=3 lr=3e-4 k=60 weight=1 basis=

# Heads on training classes alone: first epochs and rate of the teacher, by the mean of both losses;
# then with these k, the weight of the second stream and what the basis asks for, by the student.
CHOOSE_EPOCHS ?= 3 10
CHOOSE_LR ?= 3e-4 1e-3
CHOOSE_K ?= 5 20 60 120
CHOOSE_WEIGHTS ?= 0.3 1
CHOOSE_BASES ?= mining=score
CHOOSE_SEEDS ?= 0
.PHONY: slade-choose-grocery40 slade-choose-caltech101
slade-choose-grocery40 slade-choose-caltech101: slade-choose-%: $(VENV)/installed
	$(call SLADE_HEADS,$*,$(SLADE_$*_choose),$(SLADE_$*_choose_unlabelled),$(SLADE_$*_choose_test),$(SLADE_SIZES))
	$(call SLADE_STEPS,$(SLADE)/choose_$*,$(SLADE_TABLES)/slade_choose_$*.jsonl,$(SLADE_HEAD))
	k=10 weight=1 basis=
	for seed in $(CHOOSE_SEEDS); do
	  for loss in $(SLADE_LOSSES); do
	    for epochs in $(CHOOSE_EPOCHS); do
	      for lr in $(CHOOSE_LR); do
	        note=epochs=$$epochs,lr=$$lr
	        row given $$loss T
	      done
	    done
	  done
	done
	$(SLADE_CHOSEN)
	for seed in $(CHOOSE_SEEDS); do
	  for loss in $(SLADE_LOSSES); do
	    for k in $(CHOOSE_K); do
	      for weight in $(CHOOSE_WEIGHTS); do
	        for basis in $(CHOOSE_BASES); do
	          note=k=$$k,weight=$$weight,$$basis
	          row given $$loss S
	        done
	        note=k=$$k,weight=$$weight
	        row given $$loss S-plain
	      done
	    done
	  done
	done
	$(TABLE) $(SLADE_TABLES)/slade_choose_$*.jsonl
slade-choose-grocery40: SLADE_CHOSEN = epochs=10 lr=3e-4
slade-choose-caltech101: SLADE_CHOSEN = epochs=3 lr=3e-4

.PHONY: slade-grocery40 slade-caltech101 slade-omniglot
slade-grocery40 slade-caltech101: slade-%: $(VENV)/installed
	$(call SLADE_IMAGES,$*,$(SLADE_$*),$(SLADE_$*_unlabelled),$(SLADE_$*_test),--image-size 64 --resize 73)
	$(call SLADE_STEPS,$(SLADE)/$*,$(SLADE_TABLES)/slade_$*.jsonl,$(SLADE_NETWORK))
	$(SLADE_SETTINGS)
	rows
slade-grocery40: SLADE_SETTINGS = epochs=5 lr=1.5e-3 k=60 weight=0.3 basis=
slade-caltech101: SLADE_SETTINGS = epochs=5 lr=1.5e-3 k=60 weight=1 basis=

slade-omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	choose_start() {
	  local ssl=$(SLADE)/omniglot-ssl.safetensors
	  lab=(omniglot:$(DATA):background --classes 0-495) unlab=(omniglot:$(DATA):background --classes 496-963)
	  test=(omniglot:$(DATA):evaluation) from=(--arch resnet10t --image-size 32 --resize 32)
	  if [[ $$1 == ssl ]]; then
	    $(MLTOOL) pretrain omniglot:$(DATA):background --method swav --arch resnet10t --image-size 32 \
	      --resize 32 --seed 0 -q --resume -o $$ssl
	    from=(--init $$ssl)
	  fi
	}
	use_list() { pseudo=(--unlabeled $$1:all); }
	$(call SLADE_STEPS,$(SLADE)/omniglot,$(SLADE_TABLES)/slade_omniglot.jsonl,--dim 128 --augment affine $(SCRATCH))
	epochs=3 lr=1e-3 k=600 weight=1 basis=
	rows
