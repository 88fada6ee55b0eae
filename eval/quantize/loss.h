/* loss.h - how far decoded weights are from the weights. */
#ifndef QN_QUANTIZE_LOSS_H
#define QN_QUANTIZE_LOSS_H

typedef struct qn__quantize_error {
  double error2, weight2; /* sums of squares: of weight - decoded, of the weights */
  double largest;         /* |weight - decoded| */
  /* of the outputs on the inputs that calibration saw, twice the sums over rows of the mean over tokens; 0 if it saw
   * none: squares of the outputs, of their error, and of the error if codes were nearest to the weights */
  double output2, output_error2, nearest_error2;
} qn__quantize_error;

#endif
