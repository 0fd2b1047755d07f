# Embedding transfer with relaxed labels, beside the transfers it is compared with, in the paper's
# three settings: self-transfer (same network, same length), dimensionality reduction (same network,
# an eighth of the length) and compression (smaller network, a quarter of the length).
#   make -C recipes embedding-transfer-digits
#   make -C recipes embedding-transfer-omniglot DATA=/path/to/omniglot
#   make -C recipes embedding-transfer-caltech101 DATA=/path/to/caltech101 WEIGHTS=/path/to/mobilenetv2_100.safetensors
# The source is trained by proxy-anchor as in the paper, but on digits and Omniglot by supcon: proxies
# learn little in few epochs from scratch. `alone` is the target trained like that, without a source.
# The source runs online and sees the two views of each image that the target sees. All networks see
# as many images, but the small ones, which start from nothing, TRANSFER_LONGER times as many. On
# Caltech-101 reduction is from 1280 to 64, and compression the same network at 48 px. A row
# is SETTING/LOSS; targets of relaxed contrastive, RKD, PKT and DarkRank are compared by Euclidean
# distance, as published, those beside another loss by cosine. Seeds 0, 1, 2 of the source and of
# TRANSFER_BEST, seed 0 of the others. One line per finished run in results/transfer_*.jsonl; runs
# that are there are skipped, an interrupted one goes on.
#
# What the authors report, R@1 on CUB, Cars, SOP (their README):
#                     self-transfer       reduction to 64-d   R50-512 -> R18-128
#   source            69.1  86.4  79.2                        69.9  87.7  80.5
#   fitnet            69.9  87.6  78.7    62.3  81.2  76.6    61.0  78.5  76.7
#   attention         66.3  84.7  78.2    58.3  79.2  76.3    61.0  78.6  76.2
#   crd               67.7  85.3  78.1    60.9  79.2  75.5    62.8  80.6  76.2
#   darkrank          66.7  84.0  75.7    63.5  78.1  73.9    61.2  75.3  72.7
#   pkt               69.1  86.4  78.4    63.6  82.2  74.6    65.0  81.6  76.9
#   rkd               70.9  88.9  78.5    65.8  83.7  70.2    65.8  84.2  75.7
#   relaxed           72.1  89.6  79.8    67.4  86.5  76.3    66.6  86.0  78.4
# Their settings: BN-Inception or ResNet, batches of 45 classes x 2 images x 2 views, AdamW at 1e-4,
# weight decay 1e-4, cosine, 90 epochs (150 on SOP), the epoch chosen on the test data, which ours
# never is.
# With these settings, on a GPU; ResNet-50 everywhere, as timm has no BN-Inception, and ResNet-18:
#   make -C recipes embedding-transfer-cub200 DATA=/path [TRANSFER_SEEDS=0]     and -cars196, -sop
# Not theirs: the last epoch counts; attention transfer weighs 100, as its means are small; three
# stages of the networks are compared.
TRANSFER := $(RUN)/transfer
TRANSFER_TABLES ?= $(CURDIR)/results
TRANSFER_SEEDS ?= 0 1 2
TRANSFER_BEST ?= relaxed
TRANSFER_ROWS ?= alone fitnet attention crd darkrank pkt rkd relaxed
TRANSFER_SETTINGS ?= self reduction compression
# an epoch of two views is two of one
TRANSFER_EPOCHS ?= 1
TRANSFER_PASSES ?= 2
# small networks start from nothing, and are quick
TRANSFER_LONGER ?= 2
TRANSFER_VIEWS ?= --views 2 --images-per-class 2 --batch-size 128
TRANSFER_WHOLE ?= --projection linear --dim 128
TRANSFER_LESS ?= --projection linear --dim 16
TRANSFER_SMALL_DIM ?= --projection linear --dim 32
TRANSFER_NEGATIVES ?= 1024
TRANSFER_TEST ?=
TRANSFER_METRICS ?= precision@1,map@r
TRANSFER_WORDS_fitnet = --loss fitnet --loss $(TRANSFER_LOSS) --symmetric --stages 3
TRANSFER_WORDS_attention = --loss attention:weight=100 --loss $(TRANSFER_LOSS) --symmetric --stages 3
TRANSFER_WORDS_crd = --loss crd:negatives=$(TRANSFER_NEGATIVES) --loss $(TRANSFER_LOSS) --symmetric
TRANSFER_WORDS_darkrank = --loss darkrank --loss triplet:form=distance,margin=0.2 --symmetric --no-normalize
TRANSFER_WORDS_pkt = --loss pkt:weight=10000 --no-normalize
TRANSFER_WORDS_rkd = --loss rkd
TRANSFER_WORDS_relaxed = --loss relaxed-contrastive

# $(1) name, $(2) training data and image size, $(3) test data, $(4) source, $(5) small network
define TRANSFER_LOOP
mkdir -p $(TRANSFER)
table=$(TRANSFER_TABLES)/transfer_$(1).jsonl
declare -A words=($(foreach row,$(TRANSFER_ROWS),[$(row)]="$(TRANSFER_WORDS_$(row))"))
declare -A network=([self]="$(4) $(TRANSFER_WHOLE)" \
  [reduction]="$(4) $(TRANSFER_LESS)" [compression]="$(5) $(TRANSFER_SMALL_DIM)")
learned() {  # row, seed, command and its words: train, embed, test
  local base="$(TRANSFER)/$(1)-$${1/\//-}-$$2" seed=$$2 start=$$(date +%s)
  $(RECORD) --done $$table "run=$$1" seed=$$2 && [[ $$1 != source || -f $$base.safetensors ]] && return
  # a target of the same network must not start where its source has started
  [[ $$1 == source ]] && seed=$$((10 + $$2))
  $(MLTOOL) "$${@:3}" --seed $$seed --resume -q -o "$$base.safetensors"
  local seconds=$$(($$(date +%s) - start))
  $(MLTOOL) embed "$$base.safetensors" $(3) -q -o "$$base.h5"
  $(RECORD) --done $$table "run=$$1" seed=$$2 || $(MLTOOL) evaluate "$$base.h5" $(TRANSFER_TEST) --json -q \
    | $(RECORD) $$table "run=$$1" seed=$$2 train_s=$$seconds
}
taught() {  # setting, row, seed
  local times=1
  [[ $$1 == compression ]] && times=$(TRANSFER_LONGER)
  local words_of=(distill --epochs $$((times * $(TRANSFER_EPOCHS))) --teacher "$(TRANSFER)/$(1)-source-$$3.safetensors" $(TRANSFER_VIEWS) $${words[$$2]})
  [[ $$2 == alone ]] && words_of=(train --epochs $$((times * $(TRANSFER_PASSES))) --loss $(TRANSFER_LOSS) $(TRANSFER_SOURCE))
  learned $$1/$$2 $$3 "$${words_of[0]}" $(2) $${network[$$1]} "$${words_of[@]:1}"
}
for seed in $(TRANSFER_SEEDS); do
  learned source $$seed train $(2) $(4) $(TRANSFER_WHOLE) --loss $(TRANSFER_LOSS) $(TRANSFER_SOURCE) --epochs $(TRANSFER_PASSES)
  for setting in $(TRANSFER_SETTINGS); do
    for row in $(TRANSFER_BEST); do taught $$setting $$row $$seed; done
  done
done
for setting in $(TRANSFER_SETTINGS); do
  for row in $(TRANSFER_ROWS); do taught $$setting $$row $(firstword $(TRANSFER_SEEDS)); done
done
$(TABLE) $$table --metrics $(TRANSFER_METRICS) --across $(TRANSFER_SETTINGS)
endef

.PHONY: embedding-transfer-digits embedding-transfer-omniglot embedding-transfer-caltech101
# from scratch a high rate counts: source and targets alike win by it on held-out training classes
TRANSFER_SMALL := --arch resnet10t --augment affine --lr 3e-3 --warmup 0 --pooling gem --no-freeze-bn
TRANSFER_SMALLER := --arch test_resnet --augment affine --lr 3e-3 --warmup 0 --pooling gem --no-freeze-bn
embedding-transfer-digits embedding-transfer-omniglot: TRANSFER_LOSS := supcon
embedding-transfer-caltech101: TRANSFER_LOSS := proxy-anchor
# pretrained features need no new layer; there is no smaller pretrained network, so it sees less
embedding-transfer-caltech101: TRANSFER_WHOLE := --projection none
embedding-transfer-caltech101: TRANSFER_LESS := --projection linear --dim 64
embedding-transfer-caltech101: TRANSFER_SMALL_DIM := --projection none --image-size 48 --resize 55
embedding-transfer-caltech101: TRANSFER_LONGER := 1
embedding-transfer-digits: $(VENV)/installed
	$(call TRANSFER_LOOP,digits,digits:train --image-size 32 --resize 32,digits:test,$(TRANSFER_SMALL),$(TRANSFER_SMALLER))

embedding-transfer-omniglot: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/omniglot is needed" >&2; exit 2; }
	$(call TRANSFER_LOOP,omniglot,omniglot:$(DATA):background --image-size 32 --resize 32,omniglot:$(DATA):evaluation,$(TRANSFER_SMALL),$(TRANSFER_SMALLER))

embedding-transfer-caltech101: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/caltech101 is needed" >&2; exit 2; }
	test -f "$(WEIGHTS)" || { echo "WEIGHTS=/path/to/weights.safetensors is needed" >&2; exit 2; }
	$(call TRANSFER_LOOP,caltech101,$(DATA) --classes 0-49 --image-size 64 --resize 73,$(DATA) --classes 50-99,\
	  --arch mobilenetv2_100 --weights $(WEIGHTS) --pooling avg --freeze-bn --lr 1e-3,\
	  --arch mobilenetv2_100 --weights $(WEIGHTS) --pooling avg --freeze-bn --lr 1e-3)

.PHONY: embedding-transfer-cub200 embedding-transfer-cars196 embedding-transfer-sop
TRANSFER_PAPER := embedding-transfer-cub200 embedding-transfer-cars196 embedding-transfer-sop
$(TRANSFER_PAPER): TRANSFER_LOSS := proxy-anchor
$(TRANSFER_PAPER): TRANSFER_SOURCE := --schedule step --warmup 1 --clip 10
$(TRANSFER_PAPER): TRANSFER_EPOCHS := 90
$(TRANSFER_PAPER): TRANSFER_PASSES := 60
$(TRANSFER_PAPER): TRANSFER_LONGER := 1
$(TRANSFER_PAPER): TRANSFER_VIEWS := --views 2 --images-per-class 2 --batch-size 180
$(TRANSFER_PAPER): TRANSFER_WHOLE := --projection linear --dim 512
$(TRANSFER_PAPER): TRANSFER_LESS := --projection linear --dim 64
$(TRANSFER_PAPER): TRANSFER_SMALL_DIM := --projection linear --dim 128
$(TRANSFER_PAPER): TRANSFER_NEGATIVES := 4096
$(TRANSFER_PAPER): TRANSFER_METRICS := recall@1,recall@2,recall@4
embedding-transfer-sop: TRANSFER_EPOCHS := 150
embedding-transfer-sop: TRANSFER_METRICS := recall@1,recall@10,recall@100
$(TRANSFER_PAPER): TRANSFER_TEST = --metrics $(TRANSFER_METRICS)
TRANSFER_RATES := --weights timm --no-freeze-bn --pooling avg-max --lr 1e-4 --lr-backbone 1e-4 --lr-proxies 1e-2
$(TRANSFER_PAPER): embedding-transfer-%: $(VENV)/installed
	test -d "$(DATA)" || { echo "DATA=/path/to/$* is needed" >&2; exit 2; }
	$(call TRANSFER_LOOP,$*,$*:$(DATA):train --image-size 224 --resize 256,$*:$(DATA):test,\
	  --arch resnet50 $(TRANSFER_RATES),--arch resnet18 $(TRANSFER_RATES))
