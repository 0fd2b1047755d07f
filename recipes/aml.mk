# Asymmetric metric learning: a small student learns in the space of a large teacher, so that its
# queries find the teacher's gallery, which is never embedded again.
#   make -C recipes aml-digits
#   make -C recipes aml-omniglot DATA=/path/to/omniglot
#   make -C recipes aml-caltech101 DATA=/path/to/caltech101 WEIGHTS=/path/to/mobilenetv2_100.safetensors
# Digits and Omniglot: ResNet-10-T teaches timm's test_resnet, 13 times smaller, from scratch at 32 px,
# background -> evaluation alphabets. Caltech-101: MobileNetV2 (ImageNet weights) at 112 px teaches
# itself at 64 px, a third of the work; first 50 classes -> last 50.
# `alone` is contrastive on mined tuples as published, `alone-batches` learns as the teacher did. Each row
# is tested symmetrically (queries and gallery by the student) and asymmetrically (gallery by the
# teacher). In every row as many images pass through the student: AML_EPOCHS times the training images
# (the student alone spends them on tuples of seven, the others on single images). Seeds 0, 1, 2 of
# teacher, students alone and AML_BEST, seed 0 of the others. One line per finished run in
# results/aml_*.jsonl; runs that are there are skipped, one that was interrupted goes on.
#
# What the authors report: SfM-120k, teacher ResNet-101, student EfficientNet-B3, 2048-d, mAP on
# revisited Oxford and Paris, medium and hard:
#                        symmetric testing          asymmetric testing
#                      ROxf M RPar M ROxf H RPar H  ROxf M RPar M ROxf H RPar H
#   teacher              65.4   76.7   40.1   55.2
#   student alone        59.6   75.1   33.3   51.9
#   contr+               66.8   77.1   42.5   55.5    45.2   63.7   19.6   40.9
#   contr                66.3   77.4   41.3   55.5    37.4   57.4   10.9   33.7
#   triplet              39.5   69.4   11.6   45.8     1.5    4.0    0.7    2.5
#   ms                   39.9   69.7   11.7   46.2     1.5    4.0    0.7    2.4
#   reg                  64.9   74.4   40.5   52.4    52.9   65.2   27.8   42.4
#   rkd                  56.3   73.0   30.5   50.4     1.6    3.8    0.7    2.4
#   dr                   40.3   69.9   11.8   46.4     1.5    4.0    0.7    2.5
# Their settings: 5 tuples of anchor, positive and 5 negatives a step, 2000 tuples an epoch from a
# pool of 20,000 images, 100 epochs, Adam, rate 1e-6 falling by exp(-0.01) an epoch, weight decay
# 1e-6, frozen BN statistics, no augmentation, long side 362 to 1024 px; alpha 2, beta 40, base 0.5.
# Not theirs, above: square crops, augmentation, larger batches and rates, a cosine schedule, P x K and
# not pairs of co-observed points; RKD and DarkRank over batches of 64 (their batch size is not known).
#
# With these settings, on a GPU:
#   make -C recipes aml-sfm120k DATA=/path/to/sfm120k OXFORD=/path/to/roxford5k PARIS=/path/to/rparis6k
# Not theirs: a constant rate, ImageNet weights of timm, one scale, no whitening.
AML := $(RUN)/aml
AML_TABLES ?= $(CURDIR)/results
AML_SEEDS ?= 0 1 2
AML_ROWS ?= contr contr+ triplet ms reg rkd dr
AML_BEST ?= contr+ contr reg
AML_EPOCHS ?= 4
AML_TEACHER_EPOCHS ?= 4
AML_NEGATIVES ?= 5
AML_BATCHES ?= --loss supcon
AML_MINED = --mining hard --negatives $(AML_NEGATIVES) --pool 8000
AML_ALONE = $(AML_MINED) --queries $$(($(AML_IMAGES) / (2 + $(AML_NEGATIVES)))) -b 70
AML_WORDS_contr = --loss contrastive:form=squared,margin=0.7 $(AML_MINED) --queries $(AML_IMAGES)
AML_WORDS_contr+ = --loss contrastive+:form=squared,margin=0.7 $(AML_MINED) --queries $(AML_IMAGES)
AML_WORDS_triplet = --loss triplet:margin=0.5 $(AML_MINED) --queries $(AML_IMAGES)
AML_WORDS_ms = --loss multi-similarity:alpha=2,beta=40 $(AML_MINED) --queries $(AML_IMAGES)
AML_WORDS_reg = --loss regression
AML_WORDS_rkd = --loss rkd --normalize
AML_WORDS_dr = --loss darkrank --normalize

# $(1) name, $(2) training data, $(3) test data, $(4) teacher, $(5) student
define AML_LOOP
mkdir -p $(AML)
table=$(AML_TABLES)/aml_$(1).jsonl
declare -A words=($(foreach row,$(AML_ROWS),[$(row)]="$(AML_WORDS_$(row))"))
tested() {  # row, seed, seconds of training: both tests of a model whose vectors are in $$base.h5
  $(MLTOOL) evaluate "$$base.h5" --json -q \
    | $(RECORD) $$table "run=$$1/symmetric" seed=$$2 train_s=$$3
  [[ $$1 == teacher ]] || $(MLTOOL) evaluate "$$base.h5" $(AML)/$(1)-teacher-$$2.h5 --any-model --json -q \
    | $(RECORD) $$table "run=$$1/asymmetric" seed=$$2 train_s=$$3
}
learned() {  # row, seed, command and its words: train, embed, test
  base="$(AML)/$(1)-$$1-$$2"
  local last=$$1/asymmetric start=$$(date +%s)
  [[ $$1 == teacher ]] && last=$$1/symmetric
  $(RECORD) --done $$table "run=$$last" seed=$$2 && [[ $$1 != teacher || -f $$base.train.h5 ]] && return
  $(MLTOOL) "$${@:3}" --seed $$2 --resume -q -o "$$base.safetensors"
  local seconds=$$(($$(date +%s) - start))
  $(MLTOOL) embed "$$base.safetensors" $(3) -q -o "$$base.h5"
  if [[ $$1 == teacher ]]; then $(MLTOOL) embed "$$base.safetensors" $(2) -q -o "$$base.train.h5"; fi
  $(RECORD) --done $$table "run=$$last" seed=$$2 || tested $$1 $$2 $$seconds
}
taught() { learned $$1 $$2 distill $(2) $(5) --teacher $(AML)/$(1)-teacher-$$2.train.h5 --epochs $(AML_EPOCHS) -b 64 $${words[$$1]}; }
for seed in $(AML_SEEDS); do
  learned teacher $$seed train $(2) $(4) --epochs $(AML_TEACHER_EPOCHS)
  learned alone $$seed train $(2) $(5) --loss contrastive:form=squared,margin=0.7 $(AML_ALONE) --epochs $(AML_EPOCHS)
  learned alone-batches $$seed train $(2) $(5) $(AML_BATCHES) --epochs $(AML_EPOCHS)
  for row in $(AML_BEST); do taught $$row $$seed; done
done
for row in $(AML_ROWS); do taught $$row $(firstword $(AML_SEEDS)); done
$(TABLE) $$table --across symmetric asymmetric
endef

.PHONY: aml-digits aml-omniglot aml-caltech101
AML_SMALL := --augment affine --image-size 32 --resize 32 --dim 128 --lr 3e-3 $(SCRATCH)
AML_TEACHER := --arch resnet10t $(AML_SMALL) --loss supcon
AML_STUDENT := --arch test_resnet $(AML_SMALL)
aml-digits: AML_NEGATIVES := 4
aml-digits: AML_IMAGES := 901
aml-omniglot: AML_IMAGES := 19280
aml-caltech101: AML_IMAGES := 5179
aml-caltech101: AML_TEACHER_EPOCHS := 2
aml-caltech101: AML_EPOCHS := 3
aml-caltech101: AML_BATCHES := --loss multi-similarity
aml-digits: $(VENV)/installed
	$(call AML_LOOP,digits,digits:train,digits:test,$(AML_TEACHER),$(AML_STUDENT))

aml-omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	$(call AML_LOOP,omniglot,omniglot:$(DATA):background,omniglot:$(DATA):evaluation,$(AML_TEACHER),$(AML_STUDENT))

aml-caltech101: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/caltech101 is needed" >&2; exit 2; }
	test -f "$(WEIGHTS)" || { echo "WEIGHTS=/path/to/weights.safetensors is needed" >&2; exit 2; }
	$(call AML_LOOP,caltech101,$(DATA) --classes 0-49,$(DATA) --classes 50-99,\
	  --arch mobilenetv2_100 --weights $(WEIGHTS) --image-size 112 --resize 128 $(PRETRAINED) --lr 1e-3,\
	  --arch mobilenetv2_100 --weights $(WEIGHTS) --image-size 64 --resize 73 $(PRETRAINED) --lr 1e-3)

define AML_SFM_LOOP
mkdir -p $(AML)
table=$(AML_TABLES)/aml_sfm120k.jsonl
declare -A words=($(foreach row,$(AML_ROWS),[$(row)]="$(AML_WORDS_$(row)) $(AML_SFM_WORDS_$(row))"))
declare -A place=([roxford5k]="$(OXFORD)" [rparis6k]="$(PARIS)")
tested() {  # row, benchmark, symmetric or asymmetric, model of the gallery
  $(RECORD) --done $$table "run=$$1/$$3/$$2" && return
  local queries="$(AML)/sfm120k-$$1.$$2.query.h5" gallery="$(AML)/sfm120k-$$4.$$2.gallery.h5"
  $(MLTOOL) embed "$(AML)/sfm120k-$$1.safetensors" "$$2:$${place[$$2]}:query" $(AML_SFM_TEST) -q -o "$$queries"
  [[ -f $$gallery ]] || $(MLTOOL) embed "$(AML)/sfm120k-$$4.safetensors" "$$2:$${place[$$2]}:gallery" \
    $(AML_SFM_TEST) -q -o "$$gallery"
  $(MLTOOL) evaluate "$$queries" "$$gallery" --any-model --protocol revisited \
    --ground-truth "$${place[$$2]}/gnd_$$2.pkl" --json -q | $(RECORD) $$table "run=$$1/$$3/$$2"
}
learned() {  # row, command and its words
  local base="$(AML)/sfm120k-$$1"
  [[ -f $$base.safetensors ]] || $(MLTOOL) "$${@:2}" $(AML_SFM) --resume -q -o "$$base.safetensors"
  for benchmark in roxford5k rparis6k; do
    tested $$1 $$benchmark symmetric $$1
    [[ $$1 == teacher ]] || tested $$1 $$benchmark asymmetric teacher
  done
}
alone=(--loss contrastive:form=squared,margin=0.85 $(AML_MINED) --queries 2000 -b 35 --epochs 100)
learned teacher train sfm120k:$(DATA):train $(AML_SFM_TEACHER) "$${alone[@]}"
[[ -f $(AML)/sfm120k-teacher.train.h5 ]] || $(MLTOOL) embed $(AML)/sfm120k-teacher.safetensors \
  sfm120k:$(DATA):train -q -o $(AML)/sfm120k-teacher.train.h5
learned alone train sfm120k:$(DATA):train $(AML_SFM_STUDENT) "$${alone[@]}"
for row in $(AML_ROWS); do
  learned $$row distill sfm120k:$(DATA):train $(AML_SFM_STUDENT) \
    --teacher $(AML)/sfm120k-teacher.train.h5 -b 5 --epochs 100 $${words[$$row]}
done
$(TABLE) $$table --metrics map_medium,map_hard
endef

AML_SFM = --keep-aspect --image-size 362 --augment whole:flip=0 --freeze-bn \
  --optimizer adam --lr 1e-6 --lr-backbone 1e-6 --weight-decay 1e-6 --schedule constant
AML_SFM_TEST = --image-size 1024
AML_SFM_TEACHER = --arch resnet101 --weights timm --pooling gem --projection none
AML_SFM_STUDENT = --arch tf_efficientnet_b3 --weights timm --pooling gem --projection conv --dim 2048
# without mining an epoch holds all 91,642 images, not 20,000
$(foreach row,reg rkd dr,$(eval AML_SFM_WORDS_$(row) = --epochs 22))
.PHONY: aml-sfm120k
aml-sfm120k: AML_IMAGES := 2000
aml-sfm120k: AML_MINED = --mining hard --negatives 5 --pool 20000
aml-sfm120k: $(VENV)/installed
	for folder in "$(DATA)" "$(OXFORD)" "$(PARIS)"; do
	  test -d "$$folder" || { echo "DATA=, OXFORD= and PARIS= are needed" >&2; exit 2; }
	done
	$(call AML_SFM_LOOP)
